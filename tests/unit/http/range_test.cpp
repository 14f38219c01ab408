#include "common/http/range.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "common/http/message.hpp"

namespace educloud::http {
namespace {

using Kind = Range::Kind;

struct Case {
  const char* header;
  std::uint64_t size;
  Kind kind;
  std::uint64_t offset;
  std::uint64_t length;
};

class RangeHeader : public ::testing::TestWithParam<Case> {};

TEST_P(RangeHeader, IsReadAsRfc9110Says) {
  const Case& c = GetParam();
  const Range range = parse_range(c.header, c.size);
  EXPECT_EQ(range.kind, c.kind) << c.header;
  if (c.kind == Kind::unsatisfiable) return;
  EXPECT_EQ(range.offset, c.offset) << c.header;
  EXPECT_EQ(range.length, c.length) << c.header;
}

INSTANTIATE_TEST_SUITE_P(
    All, RangeHeader,
    ::testing::Values(
        Case{"", 100, Kind::whole, 0, 100}, Case{"bytes=0-9", 100, Kind::part, 0, 10},
        Case{"bytes=90-", 100, Kind::part, 90, 10}, Case{"bytes=-10", 100, Kind::part, 90, 10},
        Case{"bytes=-200", 100, Kind::part, 0, 100}, Case{"bytes=0-1000", 100, Kind::part, 0, 100},
        Case{"bytes=99-99", 100, Kind::part, 99, 1}, Case{"bytes=100-", 100, Kind::unsatisfiable, 0, 0},
        Case{"bytes=-0", 100, Kind::unsatisfiable, 0, 0}, Case{"bytes=0-", 0, Kind::unsatisfiable, 0, 0},
        Case{"bytes=-5", 0, Kind::unsatisfiable, 0, 0}, Case{"bytes=5-4", 100, Kind::whole, 0, 100},
        Case{"bytes=0-1,3-4", 100, Kind::whole, 0, 100}, Case{"items=0-1", 100, Kind::whole, 0, 100},
        Case{"bytes=-", 100, Kind::whole, 0, 100}, Case{"bytes=a-b", 100, Kind::whole, 0, 100},
        Case{"bytes=+1-2", 100, Kind::whole, 0, 100}, Case{"bytes=-1-2", 100, Kind::whole, 0, 100},
        Case{"bytes=0-99999999999999999999999", 100, Kind::part, 0, 100},
        Case{"bytes=99999999999999999999999-", 100, Kind::unsatisfiable, 0, 0},
        Case{"bytes=18446744073709551615-", UINT64_MAX, Kind::unsatisfiable, 0, 0}));

TEST(Etag, MatchesListsWeaklyAndTheStar) {
  EXPECT_TRUE(etag_matches("\"a\"", "a"));
  EXPECT_TRUE(etag_matches("\"x\", W/\"a\" ", "a"));
  EXPECT_TRUE(etag_matches("*", "a"));
  EXPECT_FALSE(etag_matches("a", "a"));
  EXPECT_FALSE(etag_matches("\"ab\"", "a"));
  EXPECT_FALSE(etag_matches("\"a", "a"));
  EXPECT_FALSE(etag_matches("", "a"));
}

class FileResponse : public ::testing::Test {
 protected:
  Response ask(Headers headers, std::string method = "GET") {
    request_.method = std::move(method);
    request_.headers = std::move(headers);
    fd_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    Response response = file_response(request_, fd_, 1000, "v1");
    if (auto* file = std::get_if<FileBody>(&response.body)) {
      body_ = *file;
      ::close(file->fd);
    }
    return response;
  }
  Request request_;
  FileBody body_;
  int fd_ = -1;
};

TEST_F(FileResponse, WholeFile) {
  const Response response = ask({});
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(body_.length, 1000U);
  EXPECT_EQ(response.headers.at("etag"), "\"v1\"");
  EXPECT_EQ(response.headers.at("Accept-Ranges"), "bytes");
}

TEST_F(FileResponse, PartOfAFile) {
  const Response response = ask({{"range", "bytes=10-19"}});
  EXPECT_EQ(response.status, 206);
  EXPECT_EQ(response.headers.at("Content-Range"), "bytes 10-19/1000");
  EXPECT_EQ(body_.offset, 10U);
  EXPECT_EQ(body_.length, 10U);
}

TEST_F(FileResponse, IfRangeComparesStrongly) {
  EXPECT_EQ(ask({{"Range", "bytes=1-"}, {"If-Range", "\"v1\""}}).status, 206);
  EXPECT_EQ(ask({{"Range", "bytes=1-"}, {"If-Range", "\"v0\""}}).status, 200);
  EXPECT_EQ(ask({{"Range", "bytes=1-"}, {"If-Range", "W/\"v1\""}}).status, 200);
  EXPECT_EQ(ask({{"Range", "bytes=1-"}, {"If-Range", "Sat, 29 Oct 1994 19:43:31 GMT"}}).status, 200);
}

TEST_F(FileResponse, UnsatisfiableClosesTheFile) {
  const Response response = ask({{"Range", "bytes=1000-"}});
  EXPECT_EQ(response.status, 416);
  EXPECT_EQ(response.headers.at("Content-Range"), "bytes */1000");
  EXPECT_EQ(::fcntl(fd_, F_GETFD), -1);
}

TEST_F(FileResponse, NotModifiedClosesTheFile) {
  const Response response = ask({{"If-None-Match", "\"v0\", \"v1\""}});
  EXPECT_EQ(response.status, 304);
  EXPECT_EQ(response.headers.at("ETag"), "\"v1\"");
  EXPECT_EQ(::fcntl(fd_, F_GETFD), -1);
}

TEST_F(FileResponse, RangeBelongsToGetOnly) {
  EXPECT_EQ(ask({{"Range", "bytes=1-2"}}, "HEAD").status, 200);
}

}  // namespace
}  // namespace educloud::http
