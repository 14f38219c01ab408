#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "crafted.hpp"

namespace educloud::image::testing {

/// Refused as invalid, and the message says all of `words`.
inline void expect_refused(const std::string& bytes, std::initializer_list<std::string> words,
                           std::optional<Format> declared = std::nullopt) {
  const auto result = inspect_bytes(bytes, declared);
  ASSERT_FALSE(result) << "accepted as " << to_string(result->format);
  EXPECT_EQ(result.error().code, ErrorCode::invalid_argument) << result.error().message;
  for (const auto& word : words) EXPECT_THAT(result.error().message, ::testing::HasSubstr(word));
}

inline void expect_refused(const Qcow2& image, std::initializer_list<std::string> words) {
  expect_refused(image.bytes(), words);
}

}  // namespace educloud::image::testing
