#include <condition_variable>
#include <mutex>

#include "common/transfer/grant.hpp"
#include "integration/clc_api/fixture.hpp"

namespace educloud::clc {
namespace {

constexpr const char* kImage = "IMG0000abcd";

class ObjectTest : public ApiTest {
 protected:
  void SetUp() override {
    ApiTest::SetUp();
    add_ready_image(kImage, "ready");
    admin_ = token_of("admin");
    anna_ = token_of("anna");
    ben_ = token_of("ben");
  }
  std::string define(const std::string& token) {
    const auto made = call("POST", "/vms", token,
                           nlohmann::json{{"imgid", kImage}, {"name", "desk"}, {"memory_mib", 256}}.dump());
    EXPECT_EQ(made.status, 201) << made.body;
    return json_of(made).value("insid", std::string());
  }
  std::string admin_, anna_, ben_;
};

TEST_F(ObjectTest, AnotherUsersDesktopIsNotThere) {
  const std::string insid = define(anna_);
  EXPECT_EQ(call("GET", "/vms/" + insid, anna_).status, 200);
  EXPECT_EQ(call("GET", "/vms/" + insid, admin_).status, 200);
  for (const auto& [method, path] :
       std::vector<std::pair<std::string, std::string>>{{"GET", ""},
                                                        {"DELETE", ""},
                                                        {"POST", "/run"},
                                                        {"POST", "/stop"},
                                                        {"GET", "/console"},
                                                        {"GET", "/screenshot"}}) {
    EXPECT_EQ(call(method, "/vms/" + insid + path, ben_).status, 404) << method << path;
  }
  EXPECT_EQ(json_of(call("GET", "/vms", ben_))["items"].size(), 0u);
  EXPECT_EQ(json_of(call("GET", "/vms", anna_))["items"].size(), 1u);
}

TEST_F(ObjectTest, ADefinitionIsChangedByItsOwner) {
  const std::string path = "/vms/" + define(anna_);
  EXPECT_EQ(call("PATCH", path, ben_, R"({"memory_mib":512})").status, 404);
  const auto changed = call("PATCH", path, anna_, R"({"memory_mib":512,"node":"nc1","version":1})");
  ASSERT_EQ(changed.status, 200) << changed.body;
  EXPECT_EQ(json_of(changed)["memory_mib"], 512);
  EXPECT_EQ(json_of(changed)["node_pin"], "nc1");
  EXPECT_EQ(json_of(changed)["version"], 1);
  EXPECT_EQ(json_of(changed)["name"], "desk") << "what is not spoken of stays";
  const auto any = json_of(call("PATCH", path, anna_, R"({"node":"","version":0,"vmtype":"vdlarge"})"));
  EXPECT_EQ(any["node_pin"], "");
  EXPECT_EQ(any["vmtype"], "vdlarge");
  EXPECT_GT(any["memory_mib"], 512) << "the type's";
  for (const auto& [body, key, status] :
       std::vector<std::tuple<std::string, std::string, int>>{{R"({"memory_mib":-1})", "memory_mib", 400},
                                                              {R"({"memory_mib":32})", "memory_mib", 400},
                                                              {R"({"cpus":257})", "cpus", 400},
                                                              {R"({"vmtype":"nosuch"})", "vmtype", 400},
                                                              {R"({"version":7})", "version", 404},
                                                              {R"({"node":"nc7"})", "node", 404},
                                                              {R"({"cluster":"cc7"})", "cluster", 404}}) {
    const auto refused = call("PATCH", path, anna_, body);
    EXPECT_EQ(refused.status, status) << body;
    EXPECT_EQ(error_of(refused)["key"], key) << body;
  }
}

TEST_F(ObjectTest, ClustersAreListedForAdministrators) {
  EXPECT_EQ(call("GET", "/clusters", anna_).status, 403);
  auto one = json_of(call("GET", "/clusters", admin_))["items"].at(0);
  EXPECT_EQ(one["host"], "cc1");
  EXPECT_EQ(one["age_ms"], -1) << "not heard of yet";
  EXPECT_EQ(one["nodes"], 1);
  EXPECT_EQ(one["nodes_alive"], 0);
  beat(8002);
  ASSERT_EQ(call("PATCH", "/clusters/cc1", admin_, R"({"database_mode":"nbd"})").status, 200);
  one = json_of(call("GET", "/clusters", admin_))["items"].at(0);
  EXPECT_EQ(one["database_mode"], "nbd");
  EXPECT_EQ(one["alive"], true);
  EXPECT_EQ(one["nodes_alive"], 1);
  EXPECT_EQ(one["address"], "127.0.0.1:8002");
  EXPECT_GE(one["age_ms"], 0);
}

TEST_F(ObjectTest, TheDiskOfANewServerImageHasTheSizeAskedFor) {
  const auto make = [&](nlohmann::json body) {
    body["name"] = "wiki";
    return call("POST", "/images", admin_, body.dump());
  };
  EXPECT_EQ(error_of(make({{"usage", "desktop"}, {"database_gib", 5}}))["key"], "database_gib");
  EXPECT_EQ(error_of(make({{"usage", "server"}, {"database_gib", 2049}}))["key"], "database_gib");
  EXPECT_EQ(error_of(make({{"usage", "server"}, {"database_gib", 0}}))["key"], "database_gib");
  const auto made = make({{"usage", "server"}, {"database_gib", 5}});
  ASSERT_EQ(made.status, 201) << made.body;
  const auto kept = store_->read([&](store::Sql& sql) -> Result<int> {
    return store::find_image(sql, json_of(made)["imgid"].get<std::string>())->database_gib;
  });
  EXPECT_EQ(*kept, 5);
}

TEST_F(ObjectTest, OrdinaryUsersChangeNoImage) {
  const std::string path = std::string("/images/") + kImage;
  EXPECT_EQ(call("GET", path, anna_).status, 200);
  EXPECT_EQ(call("DELETE", path, anna_).status, 403);
  EXPECT_EQ(call("POST", path + "/modify", anna_, "{}").status, 403);
  EXPECT_EQ(call("POST", path + "/build", anna_, R"({"name":"mine"})").status, 403);
  EXPECT_EQ(call("POST", path + "/rollback", anna_, R"({"version":1})").status, 403);
  EXPECT_EQ(call("POST", path + "/prune", anna_, R"({"keep":1})").status, 403);
  EXPECT_EQ(call("POST", "/images", anna_, R"({"name":"mine"})").status, 403);
  EXPECT_EQ(call("GET", "/nodes", anna_).status, 403);
}

TEST_F(ObjectTest, WhereNoNodeCanRunItTheAnswerSaysWhy) {
  const std::string insid = define(anna_);
  const auto answer = call("POST", "/vms/" + insid + "/run", anna_);
  EXPECT_EQ(answer.status, 507) << answer.body;
  EXPECT_FALSE(error_of(answer).value("message", std::string()).empty());
}

TEST_F(ObjectTest, ConsoleAndScreenshotComeThroughTheClusterController) {
  std::mutex mutex;
  std::vector<std::string> asked;
  http::Router routes;
  const auto serve = [&](const http::Request& request) {
    const std::string path = request.path.substr(std::string("/nodes/nc1").size());
    const auto key = transfer::derive_node_key(std::string(64, 'd'), "nc1");
    const auto granted = transfer::verify_grant(key, "GET", path, request.query, clock_.wall_ms() / 1000);
    const std::scoped_lock guard(mutex);
    asked.push_back(path);
    http::Response response;
    response.body = granted ? std::string("\x89PNG or text") : "no grant: " + granted.error().message;
    response.headers["Content-Type"] = "text/html";
    return response;
  };
  routes.add({.method = "GET", .pattern = "/nodes/{nc}/instances/{insid}/console", .handler = serve});
  routes.add({.method = "GET", .pattern = "/nodes/{nc}/instances/{insid}/screenshot", .handler = serve});
  http::Server relay({}, std::move(routes));
  ASSERT_TRUE(relay.start());
  beat(relay.port());
  const std::string insid = define(anna_);
  ASSERT_EQ(call("GET", "/vms/" + insid + "/console", anna_).status, 409) << "it is on no node yet";
  ASSERT_EQ(call("POST", "/vms/" + insid + "/run", anna_).status, 202);
  const auto console = call("GET", "/vms/" + insid + "/console", anna_);
  EXPECT_EQ(console.status, 200) << console.body;
  EXPECT_EQ(console.body, "\x89PNG or text");
  EXPECT_EQ(console.header("Content-Type"), "application/octet-stream") << "never what the other side says";
  EXPECT_EQ(call("GET", "/vms/" + insid + "/screenshot", anna_).header("Content-Type"), "image/png");
  EXPECT_EQ(call("GET", "/vms/" + insid + "/console", ben_).status, 404);
  relay.stop();
  EXPECT_EQ(call("GET", "/vms/" + insid + "/console", anna_).status, 503) << "the cluster controller is gone";
  const std::scoped_lock guard(mutex);
  EXPECT_EQ(asked.size(), 2u);
}

/// Collects a stream of events on a thread of its own.
class Listener {
 public:
  Listener(http::Client client, std::string token, std::string query)
      : thread_([this, client = std::move(client), token, query](std::stop_token stop) mutable {
          http::ClientRequest request;
          request.target = std::string(kApiBase) + "/events" + query;
          request.headers["Authorization"] = "Bearer " + token;
          const auto head = [this](const http::ClientResponse& response) -> Result<> {
            add("", response.status);
            return {};
          };
          const auto data = [this](std::span<const char> piece) -> Result<> {
            add(std::string(piece.data(), piece.size()), 0);
            return {};
          };
          auto ended = client.download(request, head, data, stop);
          if (ended) add("", ended->status);
        }) {}

  int status() {
    wait([this] { return status_ != 0; });
    return status_;
  }
  bool saw(const std::string& text) {
    return wait([&] { return text_.find(text) != std::string::npos; });
  }
  std::string text() {
    const std::scoped_lock guard(mutex_);
    return text_;
  }

 private:
  void add(const std::string& text, int status) {
    const std::scoped_lock guard(mutex_);
    text_ += text;
    if (status_ == 0) status_ = status;
    changed_.notify_all();
  }
  bool wait(const std::function<bool()>& done) {
    std::unique_lock guard(mutex_);
    return changed_.wait_for(guard, std::chrono::seconds{20}, done);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string text_;
  int status_ = 0;
  std::jthread thread_;
};

TEST_F(ObjectTest, EventsReachThoseWhoMaySeeThem) {
  beat(1);
  Listener annas(client(), anna_, ""), bens(client(), ben_, "");
  ASSERT_EQ(annas.status(), 200);
  ASSERT_EQ(bens.status(), 200);
  const std::string insid = define(anna_);
  const auto run = call("POST", "/vms/" + insid + "/run", anna_);
  ASSERT_EQ(run.status, 202) << run.body;
  EXPECT_TRUE(annas.saw("event: task")) << annas.text();
  EXPECT_TRUE(annas.saw(insid));
  const std::string mine = define(ben_);
  ASSERT_EQ(call("POST", "/vms/" + mine + "/run", ben_).status, 202);
  EXPECT_TRUE(bens.saw(mine));
  EXPECT_EQ(bens.text().find(insid), std::string::npos) << "ben sees anna's task";
}

TEST_F(ObjectTest, EventsOfATaskThatIsNotYoursAreNotThere) {
  beat(1);
  const std::string insid = define(anna_);
  const auto run = json_of(call("POST", "/vms/" + insid + "/run", anna_));
  const std::string tid = http::url_encode(run.value("tid", std::string()));
  EXPECT_EQ(Listener(client(), ben_, "?tid=" + tid).status(), 404);
  EXPECT_EQ(Listener(client(), anna_, "?tid=" + tid).status(), 200);
  EXPECT_EQ(Listener(client(), anna_, "?tid=nonsense").status(), 400);
}

TEST_F(ObjectTest, BodiesOfTheImagePathAreChecked) {
  beat(1);
  const std::string path = std::string("/images/") + kImage;
  const auto url = call("POST", path + "/versions/1/url", admin_, R"({"valid_s":600})");
  ASSERT_EQ(url.status, 200) << url.body;
  const auto answer = json_of(url);
  EXPECT_EQ(answer["url"], "http://127.0.0.1:8001/images/IMG0000abcd/versions/1/raw");
  EXPECT_EQ(answer["digest"], std::string(64, 'a'));
  EXPECT_NEAR(answer["expires"].get<double>(), static_cast<double>(clock_.wall_ms()) + 600e3, 5e3);
  EXPECT_EQ(call("POST", path + "/versions/1/url", admin_).status, 200) << "no body: the default";
  EXPECT_EQ(call("POST", path + "/versions/1/url", anna_).status, 403);
  EXPECT_EQ(call("POST", path + "/versions/2/url", admin_).status, 404);
  for (const char* bad : {"0", "-1", "x", "1x", "99999999999"})
    EXPECT_EQ(call("POST", path + "/versions/" + bad + "/url", admin_).status, 400) << bad;
  EXPECT_EQ(error_of(call("POST", path + "/versions/1/url", admin_, R"({"valid_s":1})"))["key"], "valid_s");

  EXPECT_EQ(call("POST", path + "/push", anna_, R"({"cluster":"cc1"})").status, 403);
  EXPECT_EQ(call("POST", path + "/push", admin_, "{}").status, 400);
  EXPECT_EQ(error_of(call("POST", path + "/push", admin_, R"({"nodes":[1]})"))["key"], "nodes[0]");
  const auto push = call("POST", path + "/push", admin_, R"({"nodes":["nc1"]})");
  ASSERT_EQ(push.status, 202) << push.body;
  const auto item = json_of(push)["items"][0];
  EXPECT_EQ(item["result"], "started");
  const auto task = json_of(call("GET", "/tasks/" + item["tid"].get<std::string>(), admin_));
  EXPECT_EQ(task["kind"], "push");
  EXPECT_EQ(task["bytes_per_s"], 0);

  const std::string insid = define(anna_);
  EXPECT_EQ(error_of(call("POST", "/vms/" + insid + "/run", anna_, R"({"lazy":"yes"})"))["key"], "lazy");
  const auto run = call("POST", "/vms/" + insid + "/run", anna_, R"({"lazy":true})");
  ASSERT_EQ(run.status, 202) << run.body;
  EXPECT_EQ(json_of(run)["lazy"], 1);
  const std::string tid = json_of(run).value("tid", std::string());
  EXPECT_EQ(error_of(call("POST", "/tasks/" + tid + "/submit", anna_, R"({"on_conflict":"x"})"))["key"],
            "on_conflict");
}

TEST_F(ObjectTest, ATaskIsListedStoppedAndCancelled) {
  beat(1);
  const std::string insid = define(anna_);
  const auto run = json_of(call("POST", "/vms/" + insid + "/run", anna_));
  const std::string tid = run.value("tid", std::string());
  EXPECT_EQ(call("POST", "/vms/" + insid + "/run", anna_).status, 409) << "already under way";
  EXPECT_EQ(json_of(call("GET", "/tasks?open=true&insid=" + insid, anna_))["items"].size(), 1u);
  EXPECT_EQ(json_of(call("GET", "/tasks", ben_))["items"].size(), 0u);
  EXPECT_EQ(call("GET", "/tasks?open=maybe", anna_).status, 400);
  EXPECT_EQ(call("POST", "/tasks/" + tid + "/submit", anna_).status, 409) << "a run makes no version";
  EXPECT_EQ(call("DELETE", "/tasks/" + tid, ben_).status, 404);
  EXPECT_EQ(call("DELETE", "/tasks/" + tid, anna_).status, 202);
}

}  // namespace
}  // namespace educloud::clc
