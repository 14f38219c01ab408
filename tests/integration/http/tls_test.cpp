#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <thread>

#include "fixture.hpp"
#include "raw_peer.hpp"

namespace educloud::test {
namespace {

using http::Request;

/// Runs openssl(1) with these arguments; true if it succeeded.
bool openssl(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "openssl");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    const int null = ::open("/dev/null", O_RDWR);
    ::dup2(null, 1);
    ::dup2(null, 2);
    ::execvp("openssl", argv.data());
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

class Tls : public HttpTest {
 protected:
  void SetUp() override {
    const std::string d = dir_.path().string() + "/";
    std::ofstream(d + "ext") << "subjectAltName=IP:127.0.0.1,DNS:localhost\n";
    ASSERT_TRUE(
        openssl({"req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                 d + "ca.key", "-out", d + "ca.pem", "-subj", "/CN=test CA", "-days", "2"}));
    ASSERT_TRUE(openssl({"req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                         d + "srv.key", "-out", d + "srv.csr", "-subj", "/CN=server"}));
    ASSERT_TRUE(openssl({"x509", "-req", "-in", d + "srv.csr", "-CA", d + "ca.pem", "-CAkey", d + "ca.key",
                         "-CAcreateserial", "-days", "2", "-extfile", d + "ext", "-out", d + "srv.pem"}));
    options_.tls_certificate_file = d + "srv.pem";
    options_.tls_key_file = d + "srv.key";
    ca_ = d + "ca.pem";
  }
  http::Client secure(const std::string& host, std::string ca) const {
    return http::Client(*http::Url::parse("https://" + host + ":" + std::to_string(port())),
                        {.tls_ca_file = std::move(ca)});
  }
  TempDir dir_;
  std::string ca_;
};

TEST_F(Tls, RequestsUploadsAndFilesGoThrough) {
  const std::string big(3'000'000, 'f');
  const auto path = dir_.path() / "file";
  std::ofstream(path) << big;
  get("/file", [path, size = big.size()](const Request& r) {
    return http::file_response(r, ::open(path.c_str(), O_RDONLY | O_CLOEXEC), size, "v1");
  });
  post(
      "/echo", [](const Request& r) { return text(r.body); }, 10u << 20);
  start();
  for (const char* host : {"127.0.0.1", "localhost"}) {
    auto c = secure(host, ca_);
    const auto file = c.send({.target = "/file"});
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_TRUE(file->body == big);
    for (int i = 0; i < 5; ++i) {
      const auto echo = c.send({.method = "POST", .target = "/echo", .body = big});
      ASSERT_TRUE(echo) << echo.error().message;
      EXPECT_TRUE(echo->body == big);
    }
  }
}

TEST_F(Tls, ATunnelCarriesBytesBothWaysAtOnce) {
  int ours[2] = {-1, -1}, theirs[2] = {-1, -1};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ours), 0);
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, theirs), 0);
  auto peer = std::make_shared<sys::Fd>(theirs[1]);
  get("/tunnel",
      [peer](const Request& r) { return http::upgrade_response(r, "test-bytes", std::move(*peer)); });
  start();
  Result<> ended;
  std::thread carrier([&] {
    ended = secure("127.0.0.1", ca_).tunnel({.target = "/tunnel"}, "test-bytes", sys::Fd(ours[1]));
  });
  constexpr std::size_t kMuch = 3 << 20;
  const auto write_much = [](int fd, char what) {
    const std::string piece(64 * 1024, what);
    for (std::size_t sent = 0; sent < kMuch;) {
      const auto put = ::send(fd, piece.data(), piece.size(), MSG_NOSIGNAL);
      if (put <= 0) return;
      sent += static_cast<std::size_t>(put);
    }
  };
  const auto count = [](int fd, char what) {
    std::string piece(64 * 1024, '\0');
    std::size_t seen = 0;
    while (seen < kMuch) {
      const auto got = ::read(fd, piece.data(), piece.size());
      if (got <= 0) break;
      seen += static_cast<std::size_t>(std::count(piece.begin(), piece.begin() + got, what));
    }
    return seen;
  };
  std::thread there([&] { write_much(theirs[0], 't'); });
  std::thread here([&] { write_much(ours[0], 'h'); });
  std::size_t from_here = 0;
  std::thread reader([&] { from_here = count(theirs[0], 'h'); });
  EXPECT_GE(count(ours[0], 't'), kMuch);
  for (auto* one : {&reader, &there, &here}) one->join();
  EXPECT_GE(from_here, kMuch);
  ::close(theirs[0]);
  carrier.join();
  EXPECT_TRUE(ended) << ended.error().message;
  ::close(ours[0]);
}

TEST_F(Tls, EventsGoThroughAndStopEndsThem) {
  Flag subscribed;
  std::shared_ptr<http::EventStream> stream;
  get("/events", [&](const Request&) {
    stream = std::make_shared<http::EventStream>();
    subscribed.set();
    http::Response response;
    response.body = stream;
    return response;
  });
  start();
  std::string seen;
  std::thread follower([&] {
    auto c = secure("127.0.0.1", ca_);
    const auto answer = c.download({.target = "/events"}, {}, [&](std::span<const char> data) -> Result<> {
      seen.append(data.data(), data.size());
      return {};
    });
    EXPECT_TRUE(answer) << answer.error().message;
  });
  EXPECT_TRUE(subscribed.wait());
  EXPECT_TRUE(stream->push("e", "one"));
  stream->close();
  follower.join();
  EXPECT_EQ(seen, "event: e\ndata: one\n\n");
}

TEST_F(Tls, AnUnknownCaOrAWrongNameIsRefused) {
  get("/a", [](const Request&) { return text("x"); });
  start();
  const auto unknown = secure("127.0.0.1", "").send({.target = "/a"});
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::unavailable);
  EXPECT_NE(unknown.error().message.find("certificate verify failed"), std::string::npos)
      << unknown.error().message;
  // The same certificate under an address that it does not name.
  options_.address = "127.0.0.2";
  get("/a", [](const Request&) { return text("x"); });
  start();
  const auto wrong_name = secure("127.0.0.2", ca_).send({.target = "/a"});
  ASSERT_FALSE(wrong_name);
  EXPECT_NE(wrong_name.error().message.find("certificate verify failed"), std::string::npos)
      << wrong_name.error().message;
  options_.address = "127.0.0.1";
  get("/a", [](const Request&) { return text("x"); });
  start();
  EXPECT_EQ(secure("127.0.0.1", dir_.path() / "none").send({.target = "/a"}).error().code,
            ErrorCode::invalid_argument);
}

TEST_F(Tls, PlainTextAndSilenceAreCut) {
  options_.header_timeout = std::chrono::seconds{1};
  get("/a", [](const Request&) { return text("x"); });
  start();
  RawPeer plain(port());
  plain.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(plain.read_to_end().find("HTTP"), std::string::npos);
  EXPECT_TRUE(plain.closed_by_server());
  RawPeer silent(port());
  EXPECT_EQ(silent.read_to_end(), "");
  EXPECT_TRUE(silent.closed_by_server());
}

TEST_F(Tls, AMissingKeyIsNamed) {
  options_.tls_key_file = "/nonexistent/key";
  http::Server server(options_, {});
  const auto started = server.start();
  ASSERT_FALSE(started);
  EXPECT_NE(started.error().message.find("/nonexistent/key"), std::string::npos);
}

}  // namespace
}  // namespace educloud::test
