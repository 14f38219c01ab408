#include "common/http/body_stream.hpp"

#include <gtest/gtest.h>

namespace educloud::http {
namespace {

using Impl = BodyStream::Impl;

/// What a connection would send for the pieces of a batch, files as "[offset+length]".
std::string describe(const Impl::Batch& batch) {
  std::string out;
  for (const auto& piece : batch.pieces) {
    if (piece.file) out += "[" + std::to_string(piece.offset) + "+" + std::to_string(piece.length) + "]";
    if (!piece.file) out += piece.bytes();
  }
  return out;
}

TEST(BodyStreamQueue, NeighboursInAFileAndSmallTextsAreJoined) {
  BodyStream stream;
  const auto one = std::make_shared<const sys::Fd>();
  const auto two = std::make_shared<const sys::Fd>();
  EXPECT_TRUE(stream.push(one, 0, 10));
  EXPECT_TRUE(stream.push(one, 10, 5));
  EXPECT_TRUE(stream.push(one, 20, 5));
  EXPECT_TRUE(stream.push(two, 25, 5));
  EXPECT_TRUE(stream.push("a"));
  EXPECT_TRUE(stream.push(std::make_shared<const std::string>("b")));
  EXPECT_TRUE(stream.push(""));
  EXPECT_TRUE(stream.push("c"));
  stream.finish();
  const auto batch = stream.impl()->take(1 << 20);
  EXPECT_EQ(describe(batch), "[0+15][20+5][25+5]abc");
  EXPECT_EQ(batch.pieces.size(), 4u);
  EXPECT_EQ(batch.bytes, 28u);
  EXPECT_EQ(batch.end, Impl::End::finished);
}

TEST(BodyStreamQueue, ABatchIsBoundedAndTheEndComesLast) {
  BodyStream stream;
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(stream.push(std::string(100'000, 'x')));
  stream.finish();
  auto first = stream.impl()->take(250'000);
  EXPECT_EQ(first.bytes, 200'000u);
  EXPECT_EQ(first.end, Impl::End::none);
  auto rest = stream.impl()->take(250'000);
  EXPECT_EQ(rest.bytes, 200'000u);
  EXPECT_EQ(rest.end, Impl::End::finished);
  EXPECT_FALSE(stream.push("late"));
}

TEST(BodyStreamQueue, TheConnectionIsWokenOnlyWhenItWaits) {
  BodyStream stream;
  int wakes = 0;
  stream.impl()->attach([&wakes] { ++wakes; }, std::chrono::seconds(1));
  stream.push("a");
  EXPECT_EQ(wakes, 0);
  EXPECT_EQ(describe(stream.impl()->take(10)), "a");
  EXPECT_TRUE(stream.impl()->take(10).is_empty());
  stream.push("b");
  stream.push("c");
  EXPECT_EQ(wakes, 1);
}

TEST(BodyStreamQueue, PushGivesUpOnAConnectionThatTakesNothing) {
  BodyStream stream;
  stream.impl()->attach([] {}, std::chrono::milliseconds(1));
  EXPECT_TRUE(stream.push(std::string(BodyStream::kMaxQueued, 'x'))) << "there is room";
  EXPECT_FALSE(stream.push("more"));
  EXPECT_FALSE(stream.is_open());
}

TEST(BodyStreamQueue, GoneIsToldOnceAndNotAfterTheEnd) {
  int told = 0;
  BodyStream left;
  left.on_gone([&told] { ++told; });
  left.impl()->detach();
  left.impl()->detach();
  EXPECT_EQ(told, 1);
  EXPECT_FALSE(left.push("x"));
  BodyStream whole;
  whole.on_gone([&told] { ++told; });
  whole.finish();
  whole.impl()->detach();
  EXPECT_EQ(told, 1);
}

TEST(BodyStreamQueue, AnAnswerReplacesOnlyWhatHasNotBegun) {
  BodyStream refused;
  refused.answer(error_response({ErrorCode::not_found, "no"}));
  auto batch = refused.impl()->take(10);
  EXPECT_EQ(batch.end, Impl::End::answered);
  ASSERT_TRUE(batch.answer);
  EXPECT_EQ(batch.answer->status, 404);
  BodyStream begun;
  begun.push("x");
  begun.answer(error_response({ErrorCode::not_found, "no"}));
  EXPECT_EQ(begun.impl()->take(10).end, Impl::End::aborted);
}

TEST(BodyStreamFraming, ChunksAreSeparated) {
  BodyFraming framing;
  EXPECT_EQ(framing.last(), "0\r\n\r\n");
  EXPECT_EQ(framing.before(255), "ff\r\n");
  EXPECT_EQ(framing.before(1u << 20), "\r\n100000\r\n");
  EXPECT_EQ(framing.last(), "\r\n0\r\n\r\n");
}

}  // namespace
}  // namespace educloud::http
