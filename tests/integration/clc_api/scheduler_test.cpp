#include "integration/clc_api/fixture.hpp"

namespace educloud::clc {
namespace {

constexpr const char* kImage = "IMG0000abcd";

class SchedulerApi : public ApiTest {
 protected:
  void SetUp() override {
    ApiTest::SetUp();
    add_ready_image(kImage, "ready");
    admin_ = token_of("admin");
    anna_ = token_of("anna");
    ben_ = token_of("ben");
    beat(1);
  }
  std::string admin_, anna_, ben_;
};

TEST_F(SchedulerApi, ANodesStateIsChangedByAdministratorsOnly) {
  const std::string body = R"({"state":"no_new"})";
  EXPECT_EQ(call("PATCH", "/nodes/nc1", anna_, body).status, 403);
  const auto changed = call("PATCH", "/nodes/nc1", admin_, body);
  ASSERT_EQ(changed.status, 200) << changed.body;
  const auto node = json_of(call("GET", "/nodes/nc1", admin_));
  EXPECT_EQ(node["admin_state"], "no_new");
  EXPECT_EQ(node["lease"], "held");
  EXPECT_EQ(node["lost_at"], 0);
  EXPECT_FALSE(node.contains("enabled"));
  EXPECT_EQ(error_of(call("PATCH", "/nodes/nc1", admin_, R"({"state":"gone"})"))["key"], "state");
  EXPECT_EQ(error_of(call("PATCH", "/nodes/nc1", admin_, "{}"))["key"], "state");
  EXPECT_EQ(call("PATCH", "/nodes/nc9", admin_, body).status, 404);
  EXPECT_EQ(call("PATCH", "/nodes/..%2fx", admin_, body).status, 400);
  EXPECT_EQ(call("PATCH", "/nodes/nc1", admin_, R"({"state":"enabled"})").status, 200);
}

TEST_F(SchedulerApi, WhyIsTheOwnersAndTheAdministratorsToKnow) {
  const auto made = call("POST", "/vms", anna_,
                         nlohmann::json{{"imgid", kImage}, {"name", "desk"}, {"memory_mib", 256}}.dump());
  const std::string insid = json_of(made).value("insid", std::string());
  EXPECT_EQ(call("GET", "/tasks/" + insid + "/why", anna_).status, 404) << "never started";
  const auto run = json_of(call("POST", "/vms/" + insid + "/run", anna_));
  const std::string tid = run.value("tid", std::string());
  EXPECT_EQ(run["queue_place"], 0);
  for (const auto& token : {anna_, admin_}) {
    for (const auto& id : {tid, insid}) {
      const auto why = call("GET", "/tasks/" + id + "/why", token);
      ASSERT_EQ(why.status, 200) << why.body;
      EXPECT_EQ(json_of(why)["chosen"], "nc1");
      EXPECT_EQ(json_of(why)["nodes"][0]["rank"], 1);
    }
  }
  EXPECT_EQ(call("GET", "/tasks/" + tid + "/why", ben_).status, 404);
  EXPECT_EQ(call("GET", "/tasks/" + insid + "/why", ben_).status, 404);
  EXPECT_EQ(call("GET", "/tasks/nonsense/why", anna_).status, 400);
}

TEST_F(SchedulerApi, ADryRunAnswersInNumbers) {
  const auto plan = [&](const nlohmann::json& body) { return call("POST", "/plan", admin_, body.dump()); };
  const auto fits = json_of(plan({{"image", kImage}, {"count", 14}}));
  EXPECT_EQ(fits["fits"], 14) << fits.dump();
  EXPECT_TRUE(fits["bottleneck"].is_null());
  EXPECT_EQ(fits["per_node"][0]["host"], "nc1");
  const auto too_many = json_of(plan({{"image", kImage}, {"count", 35}, {"vmtype", "vdmedium"}}));
  EXPECT_EQ(too_many["fits"], 7) << too_many.dump();
  EXPECT_EQ(too_many["missing"], 28);
  EXPECT_EQ(too_many["bottleneck"]["resource"], "memory");
  EXPECT_EQ(call("POST", "/plan", anna_, R"({"image":"IMG0000abcd","count":1})").status, 403);
  for (const auto& [body, key] : std::vector<std::pair<nlohmann::json, std::string>>{
           {{{"count", 1}}, "image"},
           {{{"image", kImage}}, "count"},
           {{{"image", kImage}, {"count", 0}}, "count"},
           {{{"image", kImage}, {"count", 10'001}}, "count"},
           {{{"image", kImage}, {"count", 1}, {"at", "soon"}}, "at"},
           {{{"image", kImage}, {"count", 1}, {"at", 1}}, "at"},
           {{{"image", kImage}, {"count", 1}, {"vmtype", "huge"}}, "vmtype"},
           {{{"image", kImage}, {"count", 1}, {"cluster", "nowhere"}}, "cluster"}}) {
    EXPECT_EQ(error_of(plan(body)).value("key", std::string()), key) << body.dump();
  }
  EXPECT_EQ(plan({{"image", "IMG00000000"}, {"count", 1}}).status, 404);
  EXPECT_EQ(plan({{"image", kImage}, {"count", 1}, {"version", 9}}).status, 404);
}

}  // namespace
}  // namespace educloud::clc
