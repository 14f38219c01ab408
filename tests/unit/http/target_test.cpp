#include "common/http/target.hpp"

#include <gtest/gtest.h>

#include "common/http/client.hpp"

namespace educloud::http {
namespace {

TEST(Target, DecodesPathAndQuery) {
  const auto target = parse_target("/images/IMG%3a1/x%20y?a=1&b=%41+b&a=2&empty&=v&&");
  ASSERT_TRUE(target) << target.error().message;
  EXPECT_EQ(target->path, "/images/IMG:1/x y");
  const std::map<std::string, std::string> query = {{"a", "2"}, {"b", "A b"}, {"empty", ""}, {"", "v"}};
  EXPECT_EQ(target->query, query);
}

TEST(Target, KeepsPlusInAPathAndATrailingSlash) {
  EXPECT_EQ(parse_target("/a+b/")->path, "/a+b/");
  EXPECT_EQ(parse_target("/")->path, "/");
  EXPECT_EQ(parse_target("http://host:1/a?b=c")->path, "/a");
  EXPECT_EQ(parse_target("http://host")->path, "/");
}

class BadTarget : public ::testing::TestWithParam<const char*> {};

TEST_P(BadTarget, IsRefused) {
  const auto target = parse_target(GetParam());
  ASSERT_FALSE(target) << target->path;
  EXPECT_EQ(target.error().code, ErrorCode::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(All, BadTarget,
                         ::testing::Values("", "a", "*", "?a", "/a//b", "//", "/../etc/passwd", "/a/..",
                                           "/a/../b", "/a/./b", "/%2e%2e/x", "/a%2Fb", "/a%00b", "/a%0ab",
                                           "/a%7f", "/%", "/%4", "/%zz", "/a?b=%", "/a?b=%00", "/a?b%0d=1",
                                           "/a#b"));

TEST(Target, BoundsItsInput) {
  EXPECT_EQ(parse_target("/" + std::string(kMaxTargetBytes, 'a')).error().code, ErrorCode::too_large);
  std::string many = "/?";
  for (std::size_t i = 0; i <= kMaxQueryKeys; ++i) many += "k" + std::to_string(i) + "=1&";
  EXPECT_FALSE(parse_target(many));
}

TEST(Target, EncodingAndDecodingAreInverse) {
  std::string all;
  for (int c = 0x20; c < 0x100; ++c) {
    if (c != 0x7f) all += static_cast<char>(c);
  }
  const std::string encoded = url_encode(all);
  EXPECT_EQ(encoded.find_first_of(" &=+/?#"), std::string::npos);
  EXPECT_EQ(*percent_decode(encoded, true), all);
  EXPECT_EQ(*percent_decode(encoded, false), all);
  EXPECT_EQ(url_encode("IMG:a b/ä"), "IMG%3Aa%20b%2F%C3%A4");
}

TEST(Url, ParsesWhatOperatorsWrite) {
  const auto plain = Url::parse("http://walrus:8001/images?x=1");
  ASSERT_TRUE(plain);
  EXPECT_FALSE(plain->tls);
  EXPECT_EQ(plain->host, "walrus");
  EXPECT_EQ(plain->port, 8001);
  EXPECT_EQ(plain->path, "/images?x=1");
  EXPECT_EQ(plain->authority(), "walrus:8001");
  const auto tls = Url::parse("https://10.0.0.1");
  ASSERT_TRUE(tls);
  EXPECT_TRUE(tls->tls);
  EXPECT_EQ(tls->port, 443);
  EXPECT_EQ(tls->path, "");
  EXPECT_EQ(tls->authority(), "10.0.0.1");
  const auto six = Url::parse("http://[::1]:80/");
  ASSERT_TRUE(six);
  EXPECT_EQ(six->host, "::1");
  EXPECT_EQ(six->authority(), "[::1]");
}

TEST(Url, RefusesTheRestWithoutShowingTheQuery) {
  for (const char* text : {"", "walrus:8001", "ftp://a", "http://", "http://:80", "http://a:", "http://a:0",
                           "http://a:65536", "http://a:8x", "http://user@a", "http://a b", "http://[::1",
                           "http://a\n", "http://[::1]x", "http://a/#f"}) {
    EXPECT_FALSE(Url::parse(text)) << text;
  }
  EXPECT_EQ(Url::parse("nope?sig=secret").error().message.find("secret"), std::string::npos);
}

}  // namespace
}  // namespace educloud::http
