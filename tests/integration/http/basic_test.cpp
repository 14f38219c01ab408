#include "fixture.hpp"
#include "raw_peer.hpp"

namespace educloud::test {
namespace {

using http::Request;
using http::Response;

class Basic : public HttpTest {};

TEST_F(Basic, KeepsOneConnectionForManyRequests) {
  std::set<std::string> peers;
  get("/hello/{name}", [](const Request& r) { return text("hello " + r.param("name") + r.query.at("q")); });
  start();
  auto c = client();
  for (int i = 0; i < 50; ++i) {
    const auto answer = c.send({.target = "/hello/w%20orld?q=%3D+x"});
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->body, "hello w orld= x");
    EXPECT_EQ(answer->header("server"), "educloud");
  }
  // On one wire: the second answer follows the first without a new connection.
  RawPeer peer(port());
  const std::string ask = "GET /hello/a?q=1 HTTP/1.1\r\nHost: x\r\n\r\n";
  peer.send(ask + ask + ask);  // pipelined
  EXPECT_NE(peer.read_until("hello a1").find("200 OK"), std::string::npos);
  peer.send("GET /hello/last?q=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string rest = peer.read_to_end();
  EXPECT_NE(rest.find("hello last1"), std::string::npos);
  EXPECT_TRUE(peer.closed_by_server());
}

TEST_F(Basic, AnswersUnknownPathsAndMethods) {
  get("/a/{id}", [](const Request&) { return text("x"); });
  post("/a/{id}", [](const Request& r) { return text(r.body); });
  start();
  auto c = client();
  EXPECT_EQ(c.send({.target = "/b"})->status, 404);
  EXPECT_EQ(c.send({.target = "/b"})->ok().error().code, ErrorCode::not_found);
  const auto wrong = c.send({.method = "DELETE", .target = "/a/1"});
  EXPECT_EQ(wrong->status, 405);
  EXPECT_EQ(wrong->header("Allow"), "GET, HEAD, POST");
  EXPECT_EQ(c.send({.method = "POST", .target = "/a/1", .body = "ping"})->body, "ping");
}

TEST_F(Basic, HeadHasTheLengthButNoBody) {
  get("/a", [](const Request&) { return text("twelve bytes"); });
  start();
  auto c = client();
  const auto head = c.send({.method = "HEAD", .target = "/a"});
  ASSERT_TRUE(head) << head.error().message;
  EXPECT_EQ(head->header("Content-Length"), "12");
  EXPECT_EQ(head->body, "");
  EXPECT_EQ(c.send({.target = "/a"})->body, "twelve bytes");
}

TEST_F(Basic, AHandlerThatThrowsIsA500AndTheConnectionLives) {
  get("/bad", [](const Request&) -> Response { throw std::runtime_error("secret detail"); });
  get("/good", [](const Request&) { return text("fine"); });
  start();
  auto c = client();
  const auto bad = c.send({.target = "/bad"});
  ASSERT_TRUE(bad);
  EXPECT_EQ(bad->status, 500);
  EXPECT_EQ(bad->body.find("secret"), std::string::npos);
  EXPECT_EQ(c.send({.target = "/good"})->body, "fine");
}

TEST_F(Basic, LimitsBodies) {
  post(
      "/small", [](const Request& r) { return text(std::to_string(r.body.size())); }, 100);
  start();
  auto c = client();
  EXPECT_EQ(c.send({.method = "POST", .target = "/small", .body = std::string(100, 'x')})->body, "100");
  const auto over = c.send({.method = "POST", .target = "/small", .body = std::string(101, 'x')});
  ASSERT_TRUE(over) << over.error().message;
  EXPECT_EQ(over->status, 413);
  EXPECT_EQ(over->ok().error().code, ErrorCode::too_large);
  EXPECT_EQ(over->header("Connection"), "close");

  const std::string head = "POST /small HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  RawPeer good(port());
  good.send(head + "32\r\n" + std::string(50, 'a') + "\r\n32\r\n" + std::string(50, 'b') + "\r\n0\r\n\r\n");
  EXPECT_NE(good.read_until("\r\n\r\n100").find("200 OK"), std::string::npos);
  RawPeer bad(port());
  bad.send(head + "32\r\n" + std::string(50, 'a') + "\r\n33\r\n" + std::string(51, 'b') + "\r\n0\r\n\r\n");
  EXPECT_NE(bad.read_to_end().find("413"), std::string::npos);
}

TEST_F(Basic, SaysContinueOnlyToWhomItWillListen) {
  post(
      "/small", [](const Request& r) { return text("got " + r.body); }, 100);
  start();
  RawPeer peer(port());
  peer.send("POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(peer.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  peer.send("body");
  EXPECT_NE(peer.read_until("got body").find("200 OK"), std::string::npos);
  RawPeer large(port());
  large.send("POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(large.read_until("\r\n\r\n").substr(0, 12), "HTTP/1.1 413");
}

TEST_F(Basic, RefusesConnectionsPastTheLimit) {
  options_.max_connections = 2;
  get("/a", [](const Request&) { return text("x"); });
  start();
  auto one = client();
  auto two = client();
  EXPECT_EQ(one.send({.target = "/a"})->status, 200);
  EXPECT_EQ(two.send({.target = "/a"})->status, 200);
  auto three = client();
  const auto refused = three.send({.target = "/a"});
  ASSERT_TRUE(refused) << refused.error().message;
  EXPECT_EQ(refused->status, 503);
  EXPECT_EQ(one.send({.target = "/a"})->status, 200);
}

TEST_F(Basic, StartNamesWhatCannotBeBound) {
  get("/a", [](const Request&) { return text("x"); });
  start();
  http::ServerOptions same = options_;
  same.port = port();
  http::Server second(same, {});
  const auto started = second.start();
  ASSERT_FALSE(started);
  EXPECT_NE(started.error().message.find(std::to_string(port())), std::string::npos);
}

TEST_F(Basic, StopCutsAnIdleAndABusyConnection) {
  get("/a", [](const Request&) { return text("x"); });
  start();
  RawPeer idle(port());
  idle.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  idle.read_until("\r\n\r\nx");
  RawPeer half(port());
  half.send("GET /a HT");
  const auto begin = std::chrono::steady_clock::now();
  server_->stop(std::chrono::seconds{1});
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds{8});
  EXPECT_EQ(half.read_to_end(), "");
  EXPECT_TRUE(half.closed_by_server());
  server_->stop();
}

}  // namespace
}  // namespace educloud::test
