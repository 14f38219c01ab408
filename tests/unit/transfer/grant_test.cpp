#include "common/transfer/grant.hpp"

#include <gtest/gtest.h>

#include "common/transfer/receipt.hpp"

namespace educloud::transfer {
namespace {

const std::string kKey(64, 'a');
const std::string kOtherKey(64, 'b');
const Grant kGrant{"GET", "/images/IMG01234567/versions/3/raw", "nc1", 1000};

std::map<std::string, std::string> parse(const std::string& query) {
  std::map<std::string, std::string> out;
  std::size_t at = 0;
  while (at < query.size()) {
    const auto end = std::min(query.find('&', at), query.size());
    const auto equals = query.find('=', at);
    out[query.substr(at, equals - at)] = query.substr(equals + 1, end - equals - 1);
    at = end + 1;
  }
  return out;
}

ErrorCode refusal(const Result<std::string>& result) {
  return result ? ErrorCode::internal : result.error().code;
}

TEST(Grant, LetsTheNamedHostDoTheNamedThing) {
  const auto query = parse(sign_grant(kKey, kGrant));
  auto node = verify_grant(kKey, "GET", kGrant.path, query, 999);
  ASSERT_TRUE(node.has_value()) << node.error().message;
  EXPECT_EQ(*node, "nc1");
}

TEST(Grant, ForGetCoversHead) {
  EXPECT_TRUE(verify_grant(kKey, "HEAD", kGrant.path, parse(sign_grant(kKey, kGrant)), 0).has_value());
}

TEST(Grant, OtherMethodPathOrKeyIsRefused) {
  const auto query = parse(sign_grant(kKey, kGrant));
  EXPECT_EQ(refusal(verify_grant(kKey, "PUT", kGrant.path, query, 0)), ErrorCode::permission_denied);
  EXPECT_EQ(refusal(verify_grant(kKey, "GET", "/images/IMG01234567/versions/4/raw", query, 0)),
            ErrorCode::permission_denied);
  EXPECT_EQ(refusal(verify_grant(kOtherKey, "GET", kGrant.path, query, 0)), ErrorCode::permission_denied);
}

TEST(Grant, EveryChangedOrMissingPartIsRefused) {
  const auto good = parse(sign_grant(kKey, kGrant));
  for (const auto& [key, value] : good) {
    auto query = good;
    query.erase(key);
    EXPECT_EQ(refusal(verify_grant(kKey, "GET", kGrant.path, query, 0)), ErrorCode::permission_denied) << key;
    for (std::size_t i = 0; i < value.size(); ++i) {
      query[key] = value;
      query[key][i] = static_cast<char>(query[key][i] == '1' ? '2' : '1');
      EXPECT_EQ(refusal(verify_grant(kKey, "GET", kGrant.path, query, 0)), ErrorCode::permission_denied)
          << key << i;
    }
    for (const char* hostile : {"", " ", "-1", "nc2", "99999999999999999999", "1000 ", "../x", "%00"}) {
      query[key] = hostile;
      EXPECT_EQ(refusal(verify_grant(kKey, "GET", kGrant.path, query, 0)), ErrorCode::permission_denied)
          << key;
    }
  }
}

TEST(Grant, EndsAtItsTime) {
  const auto query = parse(sign_grant(kKey, kGrant));
  EXPECT_TRUE(verify_grant(kKey, "GET", kGrant.path, query, 999).has_value());
  auto late = verify_grant(kKey, "GET", kGrant.path, query, 1000);
  ASSERT_FALSE(late.has_value());
  EXPECT_NE(late.error().message.find("clocks"), std::string::npos);
}

TEST(Grant, NothingIsBelievedWithoutAKey) {
  EXPECT_FALSE(verify_grant("", "GET", kGrant.path, parse(sign_grant("", kGrant)), 0).has_value());
}

TEST(Grant, NodeKeyIsOfThatNodeOnly) {
  EXPECT_NE(derive_node_key(kKey, "nc1"), derive_node_key(kKey, "nc2"));
  EXPECT_NE(derive_node_key(kKey, "nc1"), derive_node_key(kOtherKey, "nc1"));
  EXPECT_EQ(derive_node_key(kKey, "nc1").size(), 64u);
}

// RFC 4231 test case 2, so that another implementation of the same formula agrees.
TEST(Grant, MacIsHmacSha256) {
  EXPECT_EQ(hmac_hex("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

Receipt example() {
  return {"IMG01234567", 3,       std::string(64, 'd'), 4096,
          1 << 20,       "qcow2", "IMG01234567/2",      "01890a5d-ac96-774b-bcce-b302099a8057"};
}

TEST(Receipt, ComesBackAsItWas) {
  for (bool bare : {false, true}) {
    Receipt receipt = example();
    if (bare) receipt.parent.clear(), receipt.cmdid.clear();
    auto back = verify_receipt(kKey, sign_receipt(kKey, receipt));
    ASSERT_TRUE(back.has_value()) << back.error().message;
    EXPECT_EQ(*back, receipt);
  }
}

TEST(Receipt, EveryChangedCharacterIsRefused) {
  const std::string good = sign_receipt(kKey, example());
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = bad[i] == '0' ? '1' : '0';
    EXPECT_FALSE(verify_receipt(kKey, bad).has_value()) << i;
    EXPECT_FALSE(verify_receipt(kKey, good.substr(0, i)).has_value()) << i;
  }
  EXPECT_FALSE(verify_receipt(kOtherKey, good).has_value());
  EXPECT_FALSE(verify_receipt(kKey, good + " x").has_value());
  EXPECT_FALSE(verify_receipt(kKey, std::string(10'000, 'x')).has_value());
}

TEST(Receipt, ParentHasOneForm) {
  EXPECT_TRUE(check_parent("").has_value());
  EXPECT_TRUE(check_parent(make_parent("IMG01234567", 7)).has_value());
  for (const char* bad :
       {"IMG01234567", "IMG01234567/", "IMG01234567/0", "IMG01234567/-1", "../x/1", "IMG01234567/1/2"}) {
    EXPECT_FALSE(check_parent(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace educloud::transfer
