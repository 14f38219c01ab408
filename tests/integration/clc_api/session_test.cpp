#include "common/sys/process.hpp"
#include "common/transfer/chunk_routes.hpp"
#include "integration/clc_api/fixture.hpp"
#include "support/paths.hpp"

namespace educloud::clc {
namespace {

TEST_F(ApiTest, LoginGivesATokenThatLogoutEnds) {
  const auto answer = log_in("admin", kAdminPassword);
  ASSERT_EQ(answer.status, 200) << answer.body;
  const std::string token = json_of(answer)["token"];
  EXPECT_GT(json_of(answer)["expires"], clock_.wall_ms());
  EXPECT_EQ(answer.header("Cache-Control"), "no-store");
  EXPECT_EQ(call("GET", "/status", token).status, 200);
  EXPECT_EQ(call("POST", "/logout", token).status, 200);
  EXPECT_EQ(call("GET", "/status", token).status, 401);
}

TEST_F(ApiTest, WithoutATokenNothingIsTold) {
  const auto router = make_api(*cloud_);
  for (const auto& route : router.routes()) {
    if (route.pattern == "/health" || route.pattern.ends_with("/login")) continue;
    std::string path = route.pattern;
    for (auto at = path.find('{'); at != std::string::npos; at = path.find('{')) {
      path.replace(at, path.find('}') - at + 1, "IMG00000000");
    }
    for (const auto& token : {std::string(), std::string(64, '0'), std::string("x")}) {
      const auto answer = call(route.method, "/" + path, token);
      EXPECT_EQ(answer.status, 401) << route.method << " " << path << " " << answer.body;
    }
  }
  EXPECT_EQ(call("GET", "//health").status, 200);
}

TEST_F(ApiTest, WrongPasswordsAreRefusedAlikeAndThenLockedOut) {
  const auto unknown = log_in("nobody", "whatever it is");
  const auto wrong = log_in("admin", "whatever it is");
  EXPECT_EQ(unknown.status, 401);
  EXPECT_EQ(wrong.status, 401);
  EXPECT_EQ(unknown.body, wrong.body) << "it tells which names exist";
  http::ClientResponse last;
  for (int i = 0; i < 10 && last.status != 503; ++i)
    last = log_in("admin", "wrong again " + std::to_string(i));
  EXPECT_EQ(last.status, 503) << last.body;
  EXPECT_EQ(log_in("admin", kAdminPassword).status, 503) << "locked out, even with the right password";
  EXPECT_EQ(log_in("anna", kUserPassword).status, 200) << "others are not";
}

TEST_F(ApiTest, BadBodiesAreRefusedNamingTheKey) {
  const std::string token = token_of("admin");
  const std::tuple<const char*, std::string, int, std::string> cases[] = {
      {"/login", "{\"user\":\"admin\"}", 400, "password"},
      {"/login", "{\"user\":7,\"password\":\"x\"}", 400, "user"},
      {"/login", std::string(5000, 'x'), 413, ""},
      {"/images", "{", 400, ""},
      {"/images", "\"text\"", 400, ""},
      {"/images", "{}", 400, "name"},
      {"/images", R"({"name":["a"]})", 400, "name"},
      {"/images", R"({"name":"a","size_bytes":"big"})", 400, "size_bytes"},
      {"/images", R"({"name":")" + std::string(300 * 1024, 'x') + "\"}", 413, ""},
      {"/images", std::string(5000, '['), 400, ""},
      {"/vms", R"({"name":"a"})", 400, "imgid"},
      {"/vms", R"({"imgid":"IMG00000000","cpus":100000})", 400, "cpus"},
      {"/images/IMG00000000/rollback", R"({"version":"1"})", 400, "version"},
      {"/images/IMG00000000/prune", R"({"versions":[1,null]})", 400, "versions[1]"},
  };
  for (const auto& [path, body, status, key] : cases) {
    const auto answer = call("POST", path, token, body);
    EXPECT_EQ(answer.status, status) << path << " " << body.substr(0, 60) << " " << answer.body;
    EXPECT_EQ(error_of(answer).value("key", std::string()), key)
        << path << " " << body.substr(0, 60) << " " << answer.body;
  }
  EXPECT_EQ(call("GET", "/status", token).status, 200) << "and it lives";
}

TEST_F(ApiTest, UnknownAndStrangeIdsAreNotFoundOrRefused) {
  const std::string token = token_of("admin");
  for (const auto* path :
       {"/images/IMG00000000", "/vms/VD00000000", "/nodes/nc9", "/tasks/IMG00000000:IMG00000000:TMP00000000",
        "/images/IMG00000000/versions", "/vms/VD00000000/console", "/nothing", "//elsewhere"}) {
    EXPECT_EQ(call("GET", path, token).status, 404) << path;
  }
  for (const auto* path :
       {"/images/..%2f..%2fetc%2fpasswd", "/images/%2e%2e", "/images/IMG0000000%00", "/vms/VD00000000%0a",
        "/tasks/a:b:c", "/tasks/..%2f..", "/images/IMG00000000'%20OR%201=1", "/nodes/NC1%20", "/images/"}) {
    const auto answer = call("GET", path, token);
    EXPECT_TRUE(answer.status == 400 || answer.status == 404)
        << path << " " << answer.status << " " << answer.body;
  }
  EXPECT_EQ(call("PUT", "/images", token).status, 405);
  EXPECT_EQ(call("DELETE", "/status", token).status, 405);
}

TEST_F(ApiTest, TasksAreReachedWithAColonEncodedOrNot) {
  const std::string token = token_of("admin");
  const auto created = json_of(call("POST", "/images", token, R"({"name":"one","size_bytes":1000})"));
  const std::string tid = created.value("tid", std::string());
  ASSERT_FALSE(tid.empty()) << created.dump();
  EXPECT_EQ(call("GET", "/tasks/" + tid, token).status, 200);
  EXPECT_EQ(call("GET", "/tasks/" + http::url_encode(tid), token).status, 200);
  EXPECT_EQ(call("GET", "/tasks/" + tid + "/upload", token).status, 200);
}

TEST_F(ApiTest, ListsComeInPages) {
  const std::string token = token_of("admin");
  for (int i = 0; i < 7; ++i) {
    const auto made =
        call("POST", "/images", token, nlohmann::json{{"name", "image-" + std::to_string(i)}}.dump());
    ASSERT_EQ(made.status, 201) << made.body;
  }
  std::vector<std::string> names;
  std::string cursor;
  int pages = 0;
  do {
    const auto page = json_of(call(
        "GET", "/images?limit=3" + (cursor.empty() ? "" : "&cursor=" + http::url_encode(cursor)), token));
    ASSERT_TRUE(page.contains("items")) << page.dump();
    EXPECT_LE(page["items"].size(), 3u);
    for (const auto& one : page["items"]) names.push_back(one["name"]);
    cursor = page["next"].is_string() ? page["next"].get<std::string>() : "";
  } while (!cursor.empty() && ++pages < 10);
  EXPECT_EQ(names.size(), 7u);
  EXPECT_EQ(error_of(call("GET", "/images?limit=0", token)).value("key", ""), "limit");
  EXPECT_EQ(error_of(call("GET", "/images?limit=501", token)).value("key", ""), "limit");
  EXPECT_EQ(call("GET", "/images?cursor=garbage'--", token).status, 400);
}

/// "VERB /path" of each operation in docs/openapi.yaml, sorted: clc's, or those on other hosts.
std::string described_routes(const char* elsewhere) {
  sys::ProcessOptions options;
  options.argv = {"python3", "-c",
                  "import sys, yaml\n"
                  "paths = yaml.safe_load(open(sys.argv[1]))['paths']\n"
                  "lines = [f'{verb.upper()} {path}' for path, item in paths.items() "
                  "if ('servers' in item) == (sys.argv[2] == 'yes') "
                  "for verb in item if verb not in ('parameters', 'servers')]\n"
                  "print('\\n'.join(sorted(lines)))",
                  test::source_dir() / "docs/openapi.yaml", elsewhere};
  auto described = sys::run_checked(options);
  return described ? *described : described.error().message;
}

// The routes of the program and those of the description are the same, both ways.
TEST_F(ApiTest, IsDescribedByOpenapi) {
  EXPECT_EQ(described_routes("no"), list_routes(make_api(*cloud_)));
}

struct NoChunks : transfer::ChunkSource, transfer::ChunkSink {
  static tl::unexpected<Error> none() { return fail(ErrorCode::not_found, "none"); }
  Result<std::string> manifest(const transfer::ChunkCaller&, std::stop_token) override { return none(); }
  Result<std::unique_ptr<Reading>> read(const transfer::ChunkCaller&, std::vector<chunk::ChunkId>,
                                        std::stop_token) override {
    return none();
  }
  Result<std::vector<bool>> missing(const transfer::ChunkCaller&, std::vector<chunk::ChunkId>) override {
    return none();
  }
  Result<> store(const transfer::ChunkCaller&, const chunk::FrameHeader&, std::span<const char>) override {
    return none();
  }
  Result<> stored(const transfer::ChunkCaller&) override { return none(); }
  Result<std::string> publish(const transfer::ChunkCaller&, const Publish&, std::stop_token) override {
    return none();
  }
};

TEST_F(ApiTest, TheDataPathIsDescribedByOpenapiToo) {
  NoChunks none;
  transfer::ChunkRouteOptions options;
  options.key = std::string(64, 'd');
  options.clock = &clock_;
  transfer::ChunkRoutes routes(options, none, &none);
  http::Router router;
  routes.add_routes(router);
  EXPECT_EQ(described_routes("yes"), list_routes(router));
}

}  // namespace
}  // namespace educloud::clc
