#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class Accounts : public CloudTest {};

TEST_F(Accounts, ATokenLivesUntilLogoutOrItsEnd) {
  const auto session = cloud->login("root", "correct horse", "127.0.0.1");
  ASSERT_TRUE(session) << session.error().message;
  EXPECT_EQ(session->token.size(), 64u);
  EXPECT_TRUE(cloud->authenticate(session->token)->admin);
  EXPECT_EQ(cloud->authenticate(std::string(64, '0')).error().code, ErrorCode::unauthenticated);
  EXPECT_EQ(cloud->authenticate("").error().code, ErrorCode::unauthenticated);
  ASSERT_TRUE(cloud->logout(session->token));
  EXPECT_FALSE(cloud->authenticate(session->token));
  const auto second = cloud->login("root", "correct horse", "127.0.0.1");
  advance(12 * 3600);
  EXPECT_FALSE(cloud->authenticate(second->token));
}

TEST_F(Accounts, NeitherTokenNorPasswordStandsInTheDatabase) {
  const auto session = cloud->login("root", "correct horse", "127.0.0.1");
  const auto hits = store->read([&](store::Sql& sql) -> Result<std::int64_t> {
    return sql.number(
        "SELECT (SELECT COUNT(*) FROM tokens WHERE hash = ?1) + (SELECT COUNT(*) FROM accounts WHERE "
        "password_hash LIKE '%horse%' OR password_hash NOT LIKE '$argon2id$%')",
        {session->token});
  });
  EXPECT_EQ(*hits, 0);
}

TEST_F(Accounts, RepeatedFailuresMakeOneWait) {
  for (int i = 0; i < 5; ++i) {
    const auto wrong = cloud->login("root", "wrong wrong", "10.0.0.9");
    EXPECT_EQ(wrong.error().code, ErrorCode::unauthenticated);
  }
  const auto locked = cloud->login("root", "correct horse", "10.0.0.9");
  ASSERT_FALSE(locked);
  EXPECT_EQ(locked.error().code, ErrorCode::unavailable);
  EXPECT_THAT(locked.error().message, HasSubstr("wait 31 s"));
  EXPECT_TRUE(cloud->login("ann", "correct horse", "10.0.0.9")) << "others are not held up";
  advance(31);
  EXPECT_TRUE(cloud->login("root", "correct horse", "10.0.0.9"));
}

TEST_F(Accounts, UnknownNamesAreAnsweredLikeWrongPasswords) {
  const auto unknown = cloud->login("nobody", "correct horse", "10.0.0.9");
  const auto wrong = cloud->login("root", "correct cow", "10.0.0.9");
  EXPECT_EQ(unknown.error().message, wrong.error().message);
  EXPECT_FALSE(cloud->login("' OR 1=1 --", "x", "10.0.0.9"));
}

TEST_F(Accounts, SetupIsIdempotentAndChecksItsInput) {
  EXPECT_FALSE(*create_account(*store, clock, "root", "another pass", true)) << "it was there";
  EXPECT_TRUE(cloud->login("root", "correct horse", "")) << "its password is kept";
  EXPECT_EQ(create_account(*store, clock, "Root!", "long enough", true).error().key, "name");
  EXPECT_EQ(create_account(*store, clock, "bob", "short", true).error().key, "password");
  const auto session = cloud->login("ann", "correct horse", "");
  ASSERT_TRUE(set_password(*store, "ann", "battery staple"));
  EXPECT_FALSE(cloud->authenticate(session->token)) << "old sessions end";
  EXPECT_EQ(register_node(*store, "nc9", "cc9").error().code, ErrorCode::not_found);
  EXPECT_FALSE(register_cluster(*store, "../x"));
}

}  // namespace
}  // namespace educloud::clc
