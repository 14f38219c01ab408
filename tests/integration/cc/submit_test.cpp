#include <gtest/gtest.h>

#include "common/base/ids.hpp"
#include "integration/cc/relay_fixture.hpp"

namespace educloud::test {
namespace {

const std::string kImage = "IMG0000000a";

class SubmitTest : public ::testing::Test {
 protected:
  void start() { relay_ = std::make_unique<Relay>(dir_.path(), walrus_.url(), Relay::Options{}); }
  Node writer(int version, const std::string& name = "nc1") {
    return {relay_->url(), name, kImage, version, transfer::Priority::user, "PUT"};
  }
  /// What a node does: asks what is missing, sends that, publishes.
  Result<std::string> submit(const SampleDisk& disk, int version, const std::string& if_current = "") {
    auto node = writer(version);
    auto missing = node->missing(disk.order, {});
    if (!missing) return fail(missing.error());
    std::string frames;
    for (std::size_t i = 0; i < disk.order.size(); ++i) {
      if ((*missing)[i]) frames += disk.frames.at(disk.order[i]);
    }
    if (auto ok = node->store(frames, {}); !ok) return fail(ok.error());
    transfer::ChunkClient::Publish publish;
    publish.manifest = disk.manifest();
    publish.parent = transfer::make_parent(kImage, 1);
    publish.if_current = if_current;
    publish.cmdid = new_command_id().str();
    return node->publish(publish, {});
  }

  testing::TempDir dir_;
  ChunkWalrus walrus_;
  std::unique_ptr<Relay> relay_;
};

TEST_F(SubmitTest, ItReachesWalrusAndStaysInTheCache) {
  start();
  const SampleDisk disk(200, 1);
  walrus_.set_current(kImage, 1);
  auto text = submit(disk, 2, transfer::make_parent(kImage, 1));
  ASSERT_TRUE(text) << text.error().message;
  const auto receipt = transfer::verify_receipt(kDataKey, *text);
  ASSERT_TRUE(receipt) << receipt.error().message;
  EXPECT_EQ(receipt->digest, disk.digest().hex());
  EXPECT_EQ(receipt->parent, transfer::make_parent(kImage, 1));
  EXPECT_EQ(walrus_.published(kImage, 2), disk.manifest());
  EXPECT_EQ(walrus_.stored_bytes, disk.frame_bytes);

  walrus_.stop();
  auto ok = Node(relay_->url(), "nc2", kImage, 2).fetch_all(disk);
  EXPECT_TRUE(ok) << ok.error().message;
}

TEST_F(SubmitTest, OnlyWhatIsMissingIsSent) {
  start();
  const SampleDisk disk(100, 2);
  walrus_.add(kImage, 1, disk);
  walrus_.set_current(kImage, 1);
  auto text = submit(disk, 2);
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(walrus_.stored_bytes, 0u);
}

TEST_F(SubmitTest, AConflictComesBackWordForWord) {
  start();
  const SampleDisk disk(3, 3);
  walrus_.set_current(kImage, 2);
  auto refused = submit(disk, 3, transfer::make_parent(kImage, 1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
  EXPECT_EQ(refused.error().message, "the version in use is IMG0000000a/2, not IMG0000000a/1");
}

TEST_F(SubmitTest, AWrongChunkEntersNeitherCacheNorWalrus) {
  start();
  const SampleDisk good(2, 4), other(2, 5);
  // A frame that is sound in itself, under the id of another content.
  std::string lie = good.frames.at(good.order[1]);
  auto header = chunk::decode_header(std::span(lie).first(chunk::kFrameHeaderBytes));
  ASSERT_TRUE(header);
  header->id = other.order[1];
  chunk::encode_header(*header,
                       std::span<char, chunk::kFrameHeaderBytes>(lie.data(), chunk::kFrameHeaderBytes));
  const auto refused = writer(1)->store(lie, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::corrupt) << refused.error().message;
  const auto missing = relay_->store().missing(other.order, false);
  ASSERT_TRUE(missing);
  EXPECT_TRUE((*missing)[1]);
  EXPECT_EQ(walrus_.stored_bytes, 0u);
}

TEST_F(SubmitTest, WhileWalrusIsAwayTheNodeIsToldToTryAgain) {
  start();
  const SampleDisk disk(50, 6);
  walrus_.stop();
  std::string frames;
  for (const auto& id : disk.order) frames += disk.frames.at(id);
  for (int i = 0; i < 2; ++i) {
    const auto failed = writer(1)->store(frames, {});
    ASSERT_FALSE(failed);
    EXPECT_TRUE(is_retryable(failed.error().code)) << failed.error().message;
  }
  EXPECT_FALSE(writer(1)->missing(disk.order, {}));
  walrus_.start();
  auto text = submit(disk, 1);
  EXPECT_TRUE(text) << text.error().message;
}

TEST_F(SubmitTest, ConcurrentUploadsDoNotAnswerForEachOther) {
  start();
  const SampleDisk disk(400, 7);
  std::vector<std::thread> uploads;
  for (int part = 0; part < 4; ++part) {
    uploads.emplace_back([&, part] {
      std::string frames;
      for (std::size_t i = static_cast<std::size_t>(part); i < disk.order.size(); i += 4) {
        frames += disk.frames.at(disk.order[i]);
      }
      auto ok = writer(1)->store(frames, {});
      EXPECT_TRUE(ok) << ok.error().message;
    });
  }
  for (auto& upload : uploads) upload.join();
  EXPECT_EQ(walrus_.stored_bytes, disk.frame_bytes);
  auto missing = writer(1)->missing(disk.order, {});
  ASSERT_TRUE(missing) << missing.error().message;
  EXPECT_EQ(std::count(missing->begin(), missing->end(), true), 0);
}

TEST_F(SubmitTest, AUserMayNotSubmitHere) {
  start();
  const SampleDisk disk(1, 8);
  auto user = writer(1, std::string(transfer::kUserNode));
  const auto refused = user->store(disk.frames.at(disk.order[0]), {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::permission_denied) << refused.error().message;
  EXPECT_FALSE(user->missing(disk.order, {}));
}

}  // namespace
}  // namespace educloud::test
