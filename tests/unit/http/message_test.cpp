#include "common/http/message.hpp"

#include <gtest/gtest.h>

#include "common/http/client.hpp"
#include "common/http/event_stream.hpp"

namespace educloud::http {
namespace {

Response nothing(const Request&) {
  return {};
}

Router example() {
  Router router;
  router.add({.method = "GET", .pattern = "/images", .handler = nothing});
  router.add({.method = "GET", .pattern = "/images/{id}", .handler = nothing});
  router.add({.method = "DELETE", .pattern = "/images/{id}", .handler = nothing});
  router.add({.method = "GET", .pattern = "/images/{id}/versions/{n}/raw", .handler = nothing});
  router.add({.method = "GET", .pattern = "/images/special", .handler = nothing});
  router.add({.method = "HEAD", .pattern = "/both", .handler = nothing});
  router.add({.method = "GET", .pattern = "/both", .handler = nothing});
  return router;
}

TEST(Router, MatchesSegmentsAndNames) {
  const Router router = example();
  const auto match = router.match("GET", "/images/IMG1/versions/7/raw");
  ASSERT_NE(match.route, nullptr);
  EXPECT_EQ(match.params.at("id"), "IMG1");
  EXPECT_EQ(match.params.at("n"), "7");
  for (const char* path :
       {"", "/", "/image", "/images/", "/images/a/", "/images/a/b", "/imagesx", "images"}) {
    EXPECT_EQ(router.match("GET", path).route, nullptr) << path;
    EXPECT_EQ(router.match("GET", path).allow, "") << path;
  }
}

TEST(Router, AWordBeatsAName) {
  const Router router = example();
  EXPECT_EQ(router.match("GET", "/images/special").route->pattern, "/images/special");
  EXPECT_EQ(router.match("DELETE", "/images/special").route->pattern, "/images/{id}");
}

TEST(Router, HeadFallsBackToGet) {
  const Router router = example();
  EXPECT_EQ(router.match("HEAD", "/images").route->method, "GET");
  EXPECT_EQ(router.match("HEAD", "/both").route->method, "HEAD");
}

TEST(Router, SaysWhatIsAllowed) {
  const auto match = example().match("POST", "/images/x");
  EXPECT_EQ(match.route, nullptr);
  EXPECT_EQ(match.allow, "DELETE, GET, HEAD");
}

TEST(Router, RefusesARouteWithoutExactlyOneHandler) {
  Router router;
  EXPECT_THROW(router.add({.method = "GET", .pattern = "/x", .handler = {}}), std::logic_error);
  EXPECT_THROW(router.add({.method = "GET", .pattern = "x", .handler = nothing}), std::logic_error);
}

TEST(Request, JsonIsBoundedInDepthAndKind) {
  Request request;
  request.body = R"({"a": "[[[[\"[[["})";
  EXPECT_TRUE(request.json());
  for (const std::string& bad :
       {std::string(), std::string("[1]"), std::string("{"), std::string("{\"a\":1}x"),
        "{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}"}) {
    request.body = bad;
    ASSERT_FALSE(request.json());
    EXPECT_EQ(request.json().error().code, ErrorCode::invalid_argument);
  }
  request.body.assign(300 * 1024, ' ');
  EXPECT_EQ(request.json().error().code, ErrorCode::too_large);
}

TEST(Errors, TravelThroughAResponseUnchanged) {
  for (int i = 0; i <= static_cast<int>(ErrorCode::internal); ++i) {
    const Error error{static_cast<ErrorCode>(i), "what \xff went wrong", "field"};
    const Response response = error_response(error);
    EXPECT_EQ(response.status, http_status(error.code));
    ClientResponse received;
    received.status = response.status;
    received.body = std::get<std::string>(response.body);
    const auto result = received.ok();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, error.code);
    EXPECT_EQ(result.error().key, "field");
    EXPECT_NE(result.error().message.find("went wrong"), std::string::npos);
  }
}

TEST(Errors, AreMadeFromTheStatusIfTheBodyIsNotOurs) {
  for (const char* body :
       {"", "<html>", "[]", "{\"error\": 1}", "{\"error\": {\"code\": 7, \"message\": []}}"}) {
    ClientResponse response;
    response.status = 404;
    response.body = body;
    ASSERT_FALSE(response.ok());
    EXPECT_EQ(response.ok().error().code, ErrorCode::not_found);
    EXPECT_FALSE(response.ok().error().message.empty());
  }
  ClientResponse good;
  good.status = 200;
  good.body = "nonsense";
  EXPECT_TRUE(good.ok());
  EXPECT_EQ(good.json().error().code, ErrorCode::corrupt);
}

TEST(EventStream, FormatsSoThatNoValueStartsAnotherField) {
  EventStream stream;
  EXPECT_TRUE(stream.push("task\nid: 9", "one\ntwo\r", "5\n"));
  EXPECT_EQ(stream.impl()->take(1000), "id: 5\nevent: taskid: 9\ndata: one\ndata: two\n\n");
}

TEST(EventStream, IsBounded) {
  EventStream stream;
  for (std::size_t i = 0; i < EventStream::kMaxQueued; ++i) ASSERT_TRUE(stream.push("e", "x"));
  EXPECT_FALSE(stream.push("e", "x"));
  EXPECT_FALSE(stream.is_open());
  EventStream fat;
  const std::string megabyte(1u << 20, 'x');
  EXPECT_TRUE(fat.push("e", megabyte));
  while (fat.push("e", megabyte)) {
  }
  EXPECT_EQ(fat.impl()->queued_bytes, 0U);
}

}  // namespace
}  // namespace educloud::http
