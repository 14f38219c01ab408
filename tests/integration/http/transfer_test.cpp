#include <fcntl.h>
#include <sys/stat.h>

#include <random>

#include "fixture.hpp"
#include "raw_peer.hpp"

namespace educloud::test {
namespace {

using http::Request;
using http::Response;

/// Counts what a sink saw.
struct SinkLog {
  std::mutex mutex;
  std::string data;
  std::uint64_t bytes = 0;
  bool keep = true;
  Flag finished;
  Flag destroyed;
  std::atomic<bool> was_finished = false;
};

class LogSink : public http::BodySink {
 public:
  LogSink(SinkLog& log, std::uint64_t refuse_after) : log_(log), refuse_after_(refuse_after) {}
  ~LogSink() override { log_.destroyed.set(); }
  Result<> write(std::span<const char> data) override {
    std::lock_guard lock(log_.mutex);
    if (log_.bytes + data.size() > refuse_after_) return fail(ErrorCode::exhausted, "the disk is full");
    log_.bytes += data.size();
    if (log_.keep) log_.data.append(data.data(), data.size());
    return {};
  }
  Response finish() override {
    log_.was_finished = true;
    log_.finished.set();
    Response response;
    response.status = 204;
    return response;
  }

 private:
  SinkLog& log_;
  std::uint64_t refuse_after_;
};

class Transfer : public HttpTest {
 protected:
  void serve_sink(std::uint64_t refuse_after = UINT64_MAX, std::uint64_t limit = 1ull << 30) {
    stream(
        "/up",
        [this, refuse_after](const Request& r) -> Result<std::unique_ptr<http::BodySink>> {
          if (r.query.contains("no")) return fail(ErrorCode::permission_denied, "not for you");
          return std::make_unique<LogSink>(log_, refuse_after);
        },
        limit);
    start();
  }
  /// A file of random bytes, served at /file.
  void serve_file(std::size_t size) {
    content_.resize(size);
    std::mt19937_64 random(7);
    for (char& c : content_) c = static_cast<char>(random());
    const auto path = dir_.path() / "file";
    std::ofstream(path, std::ios::binary) << content_;
    get("/file", [path](const Request& r) {
      const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
      struct stat info {};
      ::fstat(fd, &info);
      return http::file_response(r, fd, static_cast<std::uint64_t>(info.st_size), "v1");
    });
    start();
  }
  static http::ReadData from(const std::string& data, std::size_t& position) {
    return [&data, &position](std::span<char> out) -> Result<std::size_t> {
      const std::size_t count = std::min(out.size(), data.size() - position);
      std::copy_n(data.data() + position, count, out.data());
      position += count;
      return count;
    };
  }

  TempDir dir_;
  std::string content_;
  SinkLog log_;
};

TEST_F(Transfer, ABigFileArrivesEqual) {
  serve_file(50'000'001);
  auto c = client();
  std::string received;
  int heads = 0;
  const auto answer = c.download(
      {.target = "/file"},
      [&heads](const http::ClientResponse& head) -> Result<> {
        ++heads;
        EXPECT_EQ(head.header("ETag"), "\"v1\"");
        return {};
      },
      [&received](std::span<const char> data) -> Result<> {
        received.append(data.data(), data.size());
        return {};
      });
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(heads, 1);
  EXPECT_TRUE(received == content_);
  EXPECT_EQ(c.send({.target = "/none"})->status, 404);
}

TEST_F(Transfer, RangesAndConditions) {
  serve_file(100'000);
  auto c = client();
  const auto part = c.send({.target = "/file", .headers = {{"Range", "bytes=500-1499"}}});
  EXPECT_EQ(part->status, 206);
  EXPECT_EQ(part->header("Content-Range"), "bytes 500-1499/100000");
  EXPECT_EQ(part->body, content_.substr(500, 1000));
  const auto tail = c.send({.target = "/file", .headers = {{"Range", "bytes=-7"}}});
  EXPECT_EQ(tail->body, content_.substr(content_.size() - 7));
  const auto beyond = c.send({.target = "/file", .headers = {{"Range", "bytes=100000-"}}});
  EXPECT_EQ(beyond->status, 416);
  EXPECT_EQ(beyond->header("Content-Range"), "bytes */100000");
  const auto same = c.send({.target = "/file", .headers = {{"If-None-Match", "\"v1\""}}});
  EXPECT_EQ(same->status, 304);
  EXPECT_EQ(same->body, "");
  const auto head = c.send({.method = "HEAD", .target = "/file"});
  EXPECT_EQ(head->header("Content-Length"), "100000");
}

TEST_F(Transfer, ADownloadEndsWithTheCallersError) {
  serve_file(5'000'000);
  auto c = client();
  const auto answer = c.download({.target = "/file"}, {}, [](std::span<const char>) -> Result<> {
    return fail(ErrorCode::exhausted, "no room");
  });
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::exhausted);
  EXPECT_EQ(c.send({.target = "/none"})->status, 404);
}

TEST_F(Transfer, AnAnswerLargerThanTheLimitIsRefused) {
  serve_file(100'000);
  auto c = client({.body_limit = 1000});
  EXPECT_EQ(c.send({.target = "/file"}).error().code, ErrorCode::too_large);
}

TEST_F(Transfer, APeerThatStopsReadingIsCut) {
  options_.body_timeout = std::chrono::seconds{1};
  serve_file(50'000'000);
  RawPeer peer(port(), 4096);
  peer.send("GET /file HTTP/1.1\r\nHost: x\r\n\r\n");
  peer.read_until("\r\n\r\n");
  const auto begin = std::chrono::steady_clock::now();
  server_->stop(std::chrono::seconds{20});  // ends as soon as the write deadline has cut the only connection
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds{10});
}

TEST_F(Transfer, AnUploadStreamsIntoItsSink) {
  serve_sink();
  const std::string data(3'000'001, 'u');
  std::size_t position = 0;
  auto c = client();
  const auto answer = c.upload({.method = "PATCH", .target = "/up"}, data.size(), from(data, position));
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->status, 204);
  EXPECT_TRUE(log_.data == data);
  RawPeer chunked(port());
  chunked.send("PATCH /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  EXPECT_NE(chunked.read_until("\r\n\r\n").find("204"), std::string::npos);
  EXPECT_EQ(log_.data.size(), data.size() + 3);
}

TEST_F(Transfer, ACutUploadDestroysItsSinkUnfinished) {
  serve_sink();
  {
    RawPeer peer(port());
    peer.send("PATCH /up HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome of it");
  }
  EXPECT_TRUE(log_.destroyed.wait());
  EXPECT_FALSE(log_.was_finished);
}

TEST_F(Transfer, ARefusedUploadIsAnsweredBeforeItsBody) {
  serve_sink();
  log_.keep = false;
  const std::string data(100'000'000, 'u');
  std::size_t position = 0;
  auto c = client();
  const auto answer = c.upload({.method = "PATCH", .target = "/up?no=1"}, data.size(), from(data, position));
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->status, 403);
  EXPECT_EQ(answer->ok().error().code, ErrorCode::permission_denied);
  EXPECT_EQ(log_.bytes, 0U);
}

TEST_F(Transfer, ASinkThatFailsInTheMiddleIsReported) {
  serve_sink(1'000'000);
  log_.keep = false;
  const std::string data(60'000'000, 'u');
  std::size_t position = 0;
  auto c = client();
  const auto answer = c.upload({.method = "PATCH", .target = "/up"}, data.size(), from(data, position));
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->ok().error().code, ErrorCode::exhausted);
  EXPECT_TRUE(log_.destroyed.wait());
  EXPECT_FALSE(log_.was_finished);
}

TEST_F(Transfer, StreamsHaveALimitToo) {
  serve_sink(UINT64_MAX, 1000);
  RawPeer declared(port());
  declared.send("PATCH /up HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n");
  EXPECT_NE(declared.read_to_end().find("413"), std::string::npos);
  EXPECT_EQ(log_.bytes, 0U);
  RawPeer counted(port());
  counted.send("PATCH /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" +
               std::string(1001, 'x'));
  EXPECT_NE(counted.read_to_end().find("413"), std::string::npos);
  EXPECT_FALSE(log_.was_finished);
}

}  // namespace
}  // namespace educloud::test
