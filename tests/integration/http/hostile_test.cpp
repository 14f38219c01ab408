#include "fixture.hpp"
#include "raw_peer.hpp"

namespace educloud::test {
namespace {

using http::Request;

/// What the server says to these bytes, until it closes.
class Hostile : public HttpTest {
 protected:
  void SetUp() override {
    options_.header_timeout = std::chrono::seconds{1};
    options_.body_timeout = std::chrono::seconds{1};
    get("/a", [this](const Request&) {
      ++served_;
      return text("x");
    });
    post("/a", [this](const Request& r) {
      ++served_;
      return text(r.body);
    });
    start();
  }
  std::string say(std::string_view bytes) {
    RawPeer peer(port());
    peer.send(bytes);
    std::string answer = peer.read_to_end();
    EXPECT_TRUE(peer.closed_by_server());
    return answer;
  }
  std::atomic<int> served_ = 0;
};

struct BadRequest {
  const char* name;
  std::string bytes;
  std::string status;
};

class HostileRequest : public Hostile, public ::testing::WithParamInterface<BadRequest> {};

TEST_P(HostileRequest, IsRefusedAndTheNextOneUnaffected) {
  const std::string answer = say(GetParam().bytes);
  EXPECT_EQ(answer.substr(0, 12), "HTTP/1.1 " + GetParam().status) << answer;
  EXPECT_NE(answer.find("Connection: close"), std::string::npos);
  EXPECT_EQ(served_, 0);
  auto c = client();
  EXPECT_EQ(c.send({.target = "/a"})->body, "x");
}

const std::string kPost = "POST /a HTTP/1.1\r\nHost: x\r\n";

INSTANTIATE_TEST_SUITE_P(
    All, HostileRequest,
    ::testing::Values(
        BadRequest{"RequestLine", "hello there\r\n\r\n", "400"},
        BadRequest{"Binary", std::string("\x16\x03\x01\0\r\n", 6), "400"},
        BadRequest{"Version", "GET /a HTTP/2.0\r\nHost: x\r\n\r\n", "400"},
        BadRequest{"NoHost", "GET /a HTTP/1.1\r\n\r\n", "400"},
        BadRequest{"TwoHosts", "GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400"},
        BadRequest{"BlankInName", "GET /a HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n", "400"},
        BadRequest{"BlankBeforeColon", "GET /a HTTP/1.1\r\nHost : x\r\n\r\n", "400"},
        BadRequest{"DotDot", "GET /a/../b HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
        BadRequest{"Nul", "GET /a%00 HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
        BadRequest{"DoubleSlash", "GET //a HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
        BadRequest{"NegativeLength", kPost + "Content-Length: -1\r\n\r\n", "400"},
        BadRequest{"WordLength", kPost + "Content-Length: ten\r\n\r\n", "400"},
        BadRequest{"HexLength", kPost + "Content-Length: 0x3\r\n\r\nabc", "400"},
        BadRequest{"OverflowingLength", kPost + "Content-Length: 99999999999999999999999\r\n\r\n", "400"},
        BadRequest{"TwoLengths", kPost + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"},
        BadRequest{"TwiceTheSameLength", kPost + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", "400"},
        BadRequest{"LengthAndChunked",
                   kPost + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
        BadRequest{"ChunkedAndLength",
                   kPost + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", "400"},
        BadRequest{"OtherCoding", kPost + "Transfer-Encoding: gzip\r\n\r\n", "400"},
        BadRequest{"TwoCodings", kPost + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400"},
        BadRequest{"ChunkedTwice",
                   kPost + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                   "400"},
        BadRequest{"ChunkedInOld", "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
        BadRequest{"ChunkSize", kPost + "Transfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n", "400"},
        BadRequest{"HugeChunkSize", kPost + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nab",
                   "400"},
        BadRequest{"ChunkWithoutEnd", kPost + "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
                   "400"},
        BadRequest{"EndlessChunkExtension",
                   kPost + "Transfer-Encoding: chunked\r\n\r\n1;" + std::string(100000, 'a'), "400"},
        BadRequest{"Expect", kPost + "Content-Length: 1\r\nExpect: the-unexpected\r\n\r\n", "417"},
        BadRequest{"HugeHeader", "GET /a HTTP/1.1\r\nHost: x\r\nX: " + std::string(20000, 'x') + "\r\n\r\n",
                   "431"},
        BadRequest{"EndlessHeader", "GET /a HTTP/1.1\r\nX: " + std::string(1 << 20, 'x'), "431"},
        BadRequest{"EndlessRequestLine", "GET /" + std::string(1 << 20, 'x'), "431"},
        BadRequest{"LongTarget", "GET /" + std::string(10000, 'x') + " HTTP/1.1\r\nHost: x\r\n\r\n", "414"},
        BadRequest{"ManyHeaders",
                   [] {
                     std::string text = "GET /a HTTP/1.1\r\nHost: x\r\n";
                     for (int i = 0; i < 200; ++i) text += "X" + std::to_string(i) + ": 1\r\n";
                     return text + "\r\n";
                   }(),
                   "431"}),
    [](const auto& tested) { return tested.param.name; });

TEST_F(Hostile, ASlowHeaderMeetsItsDeadline) {
  RawPeer peer(port());
  const auto begin = std::chrono::steady_clock::now();
  peer.send("GET /a HTTP/1.1\r\nHo");
  EXPECT_EQ(peer.read_to_end(), "");
  EXPECT_TRUE(peer.closed_by_server());
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds{900});
}

TEST_F(Hostile, DrippingHeaderBytesDoNotMoveTheDeadline) {
  RawPeer peer(port());
  const auto begin = std::chrono::steady_clock::now();
  std::string header = "GET /a HTTP/1.1\r\nHost: x\r\nX: " + std::string(1000, 'x');
  std::size_t sent = 0;
  for (; sent < header.size() && peer.send(header.substr(sent, 1)); ++sent) {
    pollfd none{-1, 0, 0};
    ::poll(&none, 1, 20);  // the pace of the attack, not a wait for an event
    if (std::chrono::steady_clock::now() - begin > std::chrono::seconds{10}) break;
  }
  EXPECT_LT(sent, 400U);
}

TEST_F(Hostile, AStalledBodyMeetsItsDeadline) {
  EXPECT_EQ(say(kPost + "Content-Length: 10\r\n\r\nabc"), "");
  EXPECT_EQ(served_, 0);
}

TEST_F(Hostile, ALateSmuggledRequestIsNotServed) {
  const std::string answer = say(kPost + "Content-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" +
                                 "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(answer.find("200 OK"), std::string::npos);
  EXPECT_EQ(served_, 0);
}

TEST_F(Hostile, AnAnswerHeaderFromInputCannotSplitTheAnswer) {
  http::Router router;
  router.add({.method = "GET", .pattern = "/echo", .handler = [](const Request& r) {
                http::Response response;
                response.headers["X-Echo"] = std::string(r.header("X-In")) + "\r\nX-Evil: 1\r\n\r\n<html>";
                return response;
              }});
  http::Server server({}, std::move(router));
  ASSERT_TRUE(server.start());
  RawPeer peer(server.port());
  peer.send("GET /echo HTTP/1.1\r\nHost: x\r\nX-In: v\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(peer.read_to_end().find("\r\nX-Evil"), std::string::npos);
}

TEST_F(Hostile, ManyConnectionsAtOnceAndStopInTheMiddle) {
  std::vector<std::unique_ptr<RawPeer>> peers;
  for (int i = 0; i < 200; ++i) {
    peers.push_back(std::make_unique<RawPeer>(port()));
    peers.back()->send(i % 3 == 0 ? "GET /a HTTP/1.1\r\nHost: x\r\n\r\n" : i % 3 == 1 ? "GET /a HT" : "");
    if (i % 7 == 0) peers.back()->close();
  }
  server_->stop(std::chrono::seconds{0});
}

}  // namespace
}  // namespace educloud::test
