#include "clc/api/answer_cache.hpp"

#include <gtest/gtest.h>

namespace educloud::clc::api {
namespace {

class AnswerCacheTest : public testing::Test {
 protected:
  std::string ask(const std::string& key, std::uint64_t version, int status = 200) {
    const auto response = cache_.answer(key, version, [&] {
      http::Response made;
      made.status = status;
      made.body = std::to_string(++made_);
      return made;
    });
    return std::get<std::string>(response.body);
  }
  AnswerCache cache_;
  int made_ = 0;
};

TEST_F(AnswerCacheTest, KeepsAnAnswerUntilSomethingIsCommitted) {
  EXPECT_EQ(ask("ada admin VD1", 5), "1");
  EXPECT_EQ(ask("ada admin VD1", 5), "1");
  EXPECT_EQ(ask("bob user VD1", 5), "2");
  EXPECT_EQ(ask("ada admin VD1", 6), "3");
  EXPECT_EQ(ask("bob user VD1", 6), "4");
}

TEST_F(AnswerCacheTest, AnAnswerThatTookLongDoesNotReplaceANewerOne) {
  std::string late;
  const auto outer = cache_.answer("a", 5, [&] {
    late = ask("a", 6);  // somebody else asked, and saw a commit, while this one was made
    http::Response made;
    made.body = "old";
    return made;
  });
  EXPECT_EQ(std::get<std::string>(outer.body), "old");
  EXPECT_EQ(ask("a", 6), late);
}

TEST_F(AnswerCacheTest, KeepsNoErrorsAndHasABound) {
  EXPECT_EQ(ask("a", 1, 404), "1");
  EXPECT_EQ(ask("a", 1), "2");
  for (std::size_t i = 0; i < AnswerCache::kEntries; ++i) ask(std::to_string(i), 1);
  EXPECT_NE(ask("a", 1), "2");
}

}  // namespace
}  // namespace educloud::clc::api
