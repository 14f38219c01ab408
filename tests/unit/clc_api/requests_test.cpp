#include <gtest/gtest.h>

#include "clc/api/context.hpp"
#include "clc/api/requests.hpp"

namespace educloud::clc::api {
namespace {

http::Request request_with(std::string body) {
  http::Request request;
  request.body = std::move(body);
  return request;
}

/// "status key" of the answer to a body, or "accepted".
template <class T>
std::string verdict(const std::string& body) {
  const auto response = with_body<T>(request_with(body), [](const T&) {
    http::Response accepted;
    accepted.status = 299;
    return accepted;
  });
  if (response.status == 299) return "accepted";
  const auto error = nlohmann::json::parse(std::get<std::string>(response.body))["error"];
  return std::to_string(response.status) + " " + error.value("key", std::string());
}

TEST(Bodies, NameTheKeyThatIsWrong) {
  EXPECT_EQ(verdict<LoginBody>(R"({"user":"a","password":"b"})"), "accepted");
  EXPECT_EQ(verdict<LoginBody>(R"({"user":"a"})"), "400 password");
  EXPECT_EQ(verdict<LoginBody>(R"({"user":1,"password":"b"})"), "400 user");
  EXPECT_EQ(verdict<LoginBody>(""), "400 user");
  EXPECT_EQ(verdict<ImageBody>(R"({"name":"x","size_bytes":-1})"), "400 size_bytes");
  EXPECT_EQ(verdict<ImageBody>(R"({"name":"x","usage":"toaster"})"), "400 usage");
  EXPECT_EQ(verdict<ImageBody>(R"({"name":"x","something":"new"})"), "accepted");
  EXPECT_EQ(verdict<VmBody>(R"({"imgid":"IMG01234567","cpus":1.5})"), "400 cpus");
  EXPECT_EQ(verdict<VmBody>(R"({"imgid":["IMG01234567"]})"), "400 imgid");
  EXPECT_EQ(verdict<VmBody>(R"({"imgid":"IMG01234567","hostname":7})"), "400 hostname");
  EXPECT_EQ(verdict<LimitsBody>("{}"), "accepted");
  EXPECT_EQ(verdict<LimitsBody>(R"({"cpu_percent":"much"})"), "400 cpu_percent");
  EXPECT_EQ(verdict<LimitsBody>(R"({"disk_iops":-1})"), "400 disk_iops");
  EXPECT_EQ(verdict<SnapshotBody>(R"({"memory":"yes"})"), "400 memory");
  EXPECT_EQ(verdict<VmTypeBody>(R"({"memory_mib":512})"), "400 cpus");
  EXPECT_EQ(verdict<VmTypeBody>(R"({"memory_mib":512,"cpus":1,"limits":{"net_mbit_s":-1}})"),
            "400 limits.net_mbit_s");
  EXPECT_EQ(verdict<OsTypeBody>(R"({"disk_type":"floppy","nic_type":"e1000"})"), "400 disk_type");
  EXPECT_EQ(verdict<OsTypeBody>(R"({"disk_type":"ide","nic_type":"e1000"})"), "accepted");
  EXPECT_EQ(verdict<PruneBody>(R"({"versions":[1,"2"]})"), "400 versions[1]");
  EXPECT_EQ(verdict<RollbackBody>(R"({"version":0})"), "400 version");
  EXPECT_EQ(verdict<EditBody>(R"({"memory_mib":1e300})"), "400 memory_mib");
}

TEST(Bodies, MalformedOnesAreRefused) {
  EXPECT_EQ(verdict<LoginBody>("{"), "400 ");
  EXPECT_EQ(verdict<LoginBody>("[]").substr(0, 3), "400");
  EXPECT_EQ(verdict<LoginBody>(std::string(100'000, '[')).substr(0, 3), "400") << "nested too deep";
  EXPECT_EQ(verdict<LoginBody>("{\"user\":\"" + std::string(300 * 1024, 'x') + "\"}").substr(0, 3), "413");
  EXPECT_EQ(verdict<LoginBody>("{\"user\":\"\xff\",\"password\":\"x\"}").substr(0, 3), "400") << "not UTF-8";
}

TEST(Token, ComesFromABearerHeaderOnly) {
  http::Request request;
  EXPECT_EQ(bearer_token(request), "");
  request.headers["Authorization"] = "Bearer abc";
  EXPECT_EQ(bearer_token(request), "abc");
  request.headers["Authorization"] = "bearer abc";
  EXPECT_EQ(bearer_token(request), "abc");
  request.headers["Authorization"] = "Basic abc";
  EXPECT_EQ(bearer_token(request), "");
  request.headers["Authorization"] = "Bearer " + std::string(10'000, 'a');
  EXPECT_EQ(bearer_token(request), "");
}

TEST(Paging, HasBounds) {
  const auto limit_of = [](const std::string& text) {
    http::Request request;
    request.query["limit"] = text;
    auto page = page_request(request);
    return page ? page->limit : -1;
  };
  EXPECT_EQ(limit_of("1"), 1);
  EXPECT_EQ(limit_of("500"), 500);
  for (const auto* bad : {"0", "501", "-1", "x", "", "1x", "99999999999999999999"})
    EXPECT_EQ(limit_of(bad), -1) << bad;
  http::Request request;
  EXPECT_EQ(page_request(request)->limit, 100);
  request.query["cursor"] = std::string(1000, 'a');
  EXPECT_EQ(page_request(request).error().key, "cursor");
}

TEST(Headers, KeepBrowsersOut) {
  http::Response response;
  response.status = 401;
  secure(response);
  EXPECT_EQ(response.headers["Cache-Control"], "no-store");
  EXPECT_EQ(response.headers["X-Content-Type-Options"], "nosniff");
  EXPECT_EQ(response.headers.count("WWW-Authenticate"), 1u);
}

}  // namespace
}  // namespace educloud::clc::api
