#include "common/transfer/chunk_request.hpp"

#include <gtest/gtest.h>

#include <random>

#include "common/transfer/grant.hpp"

namespace educloud::transfer {
namespace {

const std::string kKey(64, 'b');

TEST(Bitmap, BitsComeBack) {
  EXPECT_EQ(encode_bitmap({}), "");
  EXPECT_EQ(encode_bitmap({true, false, false, false, false, false, false, true, true}), "8101");
  std::mt19937 random(1);
  for (std::size_t count = 0; count < 70; ++count) {
    std::vector<bool> bits(count);
    for (std::size_t i = 0; i < count; ++i) bits[i] = random() % 2 == 0;
    EXPECT_EQ(decode_bitmap(encode_bitmap(bits), count), bits) << count;
  }
}

TEST(Bitmap, OnlyItsOwnFormIsTaken) {
  EXPECT_TRUE(decode_bitmap("81", 8));
  for (const char* bad : {"", "8", "810", "8g", "8F", " 1", "8101"}) {
    EXPECT_EQ(decode_bitmap(bad, 8).error().code, ErrorCode::corrupt) << bad;
  }
  EXPECT_EQ(decode_bitmap("81", 7).error().code, ErrorCode::corrupt) << "a bit past the end";
}

TEST(PriorityName, ComesBack) {
  for (const auto priority : {Priority::user, Priority::prefetch, Priority::replication}) {
    EXPECT_EQ(parse_priority(to_string(priority)), priority);
  }
  for (const char* bad : {"", "User", "0", "user "}) EXPECT_FALSE(parse_priority(bad)) << bad;
}

http::Request request(const std::string& id, const std::string& version, const Grant& grant) {
  http::Request out;
  out.params = {{"id", id}, {"version", version}};
  out.query = {{"node", grant.node}, {"expires", std::to_string(grant.expires_s)}};
  const std::string text = sign_grant(kKey, grant);
  out.query["sig"] = text.substr(text.find("sig=") + 4);
  return out;
}

TEST(Caller, NeedsIdsAGrantAndAPriority) {
  const Grant read{"GET", version_path("IMG01234567", 12), "nc-7", 1000};
  auto good = request("IMG01234567", "12", read);
  good.headers["Educloud-Priority"] = "replication";
  const auto caller = check_caller(good, "GET", kKey, 999);
  ASSERT_TRUE(caller) << caller.error().message;
  EXPECT_EQ(caller->imgid, "IMG01234567");
  EXPECT_EQ(caller->version, 12);
  EXPECT_EQ(caller->node, "nc-7");
  EXPECT_EQ(caller->priority, Priority::replication);
  EXPECT_EQ(check_caller(good, "GET", kKey, 1000).error().code, ErrorCode::permission_denied);
  EXPECT_EQ(check_caller(good, "PUT", kKey, 999).error().code, ErrorCode::permission_denied);
  EXPECT_EQ(check_caller(good, "GET", std::string(64, 'c'), 999).error().code, ErrorCode::permission_denied);
  good.headers["Educloud-Priority"] = "now";
  EXPECT_EQ(check_caller(good, "GET", kKey, 999).error().code, ErrorCode::invalid_argument);
  for (const char* version : {"", "0", "-1", "+12", "012", "12x", "1000000001", "99999999999"}) {
    EXPECT_EQ(check_caller(request("IMG01234567", version, read), "GET", kKey, 999).error().code,
              ErrorCode::invalid_argument)
        << version;
  }
  for (const char* id : {"", "IMG0123456", "img01234567", "IMG0123456G", "../01234567"}) {
    EXPECT_EQ(check_caller(request(id, "12", read), "GET", kKey, 999).error().code,
              ErrorCode::invalid_argument)
        << id;
  }
}

}  // namespace
}  // namespace educloud::transfer
