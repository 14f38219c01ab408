// What hosts submit, honest and not.
#include "integration/walrus/fixture.hpp"

namespace educloud::walrus {
namespace {

using chunk::ChunkId;

std::string parent_of(int version) {
  return transfer::make_parent(kImage, version);
}

/// Frames of `contents`, each under the id it is said to have.
std::string frames_of(const std::map<ChunkId, std::string>& contents) {
  chunk::FrameEncoder encoder;
  std::string out;
  for (const auto& [id, bytes] : contents) {
    EXPECT_TRUE(encoder.append(id, bytes, out).has_value());
  }
  return out;
}

class Submit : public WalrusTest {
 protected:
  Result<std::string> publish(const std::string& manifest, int version = 1) {
    auto client = chunk_client(url_, version, "PUT");
    return client.publish({manifest, "", "", new_command_id().str()}, {});
  }
  Result<> store(const std::string& frames) {
    auto client = chunk_client(url_, 1, "PUT");
    return client.store(frames, {});
  }
  void expect_refused(const Result<std::string>& result, ErrorCode code, const std::string& part) {
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, code) << result.error().message;
    EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
    EXPECT_FALSE(is_published(1));
  }
};

TEST_F(Submit, OnlyWhatChangedIsSent) {
  auto disk = noise(12 << 20, 1);
  const auto first = submit(disk, 1);
  ASSERT_TRUE(first.receipt.has_value()) << first.receipt.error().message;
  EXPECT_EQ(first.sent_chunks, 192u + 3u);
  disk[5 << 20] ^= 1;
  const auto second = submit(disk, 2, parent_of(1), parent_of(1));
  ASSERT_TRUE(second.receipt.has_value()) << second.receipt.error().message;
  EXPECT_EQ(second.sent_chunks, 2u) << "the chunk and its group";
  auto receipt = transfer::verify_receipt(kKey, *second.receipt);
  ASSERT_TRUE(receipt.has_value());
  EXPECT_EQ(receipt->digest, CutDisk(disk).map.manifest().digest().hex());
  EXPECT_EQ(receipt->parent, parent_of(1));
  EXPECT_EQ(receipt->size_bytes, 12 << 20);
  EXPECT_EQ(content(2), disk);
  EXPECT_EQ(current(), 2);
  expect_sound();
}

TEST_F(Submit, TheSameAgainIsNoConflictAnotherDiskIs) {
  const auto disk = noise(1 << 20, 1);
  ASSERT_TRUE(submit(disk, 3).receipt.has_value());
  const auto again = submit(disk, 3);
  EXPECT_TRUE(again.receipt.has_value());
  EXPECT_EQ(again.sent_chunks, 0u);
  auto refused = submit(noise(1 << 20, 2), 3).receipt;
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
  EXPECT_NE(refused.error().message.find("version 3"), std::string::npos);
  EXPECT_EQ(content(3), disk);
}

TEST_F(Submit, SecondOfTwoFromOneSourceIsToldAndLosesNothing) {
  const auto base = noise(4 << 20, 1);
  ASSERT_TRUE(submit(base, 1).receipt.has_value());
  auto mine = base;
  auto theirs = base;
  mine[10] ^= 1;
  theirs[70000] ^= 1;
  ASSERT_TRUE(submit(theirs, 2, parent_of(1), parent_of(1)).receipt.has_value());
  auto refused = submit(mine, 3, parent_of(1), parent_of(1)).receipt;
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
  for (const auto& part : {parent_of(1), parent_of(2)}) {
    EXPECT_NE(refused.error().message.find(part), std::string::npos) << refused.error().message;
  }
  EXPECT_FALSE(is_published(3));
  // The choice to replace: the other one stays in the list.
  const auto replaced = submit(mine, 3, parent_of(1), "");
  ASSERT_TRUE(replaced.receipt.has_value()) << replaced.receipt.error().message;
  EXPECT_EQ(replaced.sent_chunks, 0u) << "what was sent before the conflict is still here";
  EXPECT_EQ(current(), 3);
  EXPECT_EQ(content(2), theirs);
  EXPECT_EQ(content(3), mine);
}

TEST_F(Submit, RepeatAfterTheAnswerGotLostSucceeds) {
  const auto base = noise(1 << 20, 1);
  ASSERT_TRUE(submit(base, 1).receipt.has_value());
  const CutDisk next(noise(1 << 20, 2));
  ASSERT_TRUE(submit_disk(url_, next, 2, parent_of(1), parent_of(1)).receipt.has_value());
  EXPECT_TRUE(submit_disk(url_, next, 2, parent_of(1), parent_of(1)).receipt.has_value())
      << "the version in use is its own now, and that is no conflict";
  stop();
  start();
  EXPECT_TRUE(submit_disk(url_, next, 2, parent_of(1), parent_of(1)).receipt.has_value());
}

TEST_F(Submit, ChunksThatLieAreNotStored) {
  const std::string honest(chunk::kChunkBytes, 'h');
  const auto wrong = ChunkId::of(std::string(100, 'w'));
  auto refused = store(frames_of({{wrong, honest}}));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::corrupt) << refused.error().message;
  // One that unpacks to more than it says.
  auto frames = frames_of({{ChunkId::of(honest), honest}});
  auto header = *chunk::decode_header(std::string_view(frames).substr(0, chunk::kFrameHeaderBytes));
  ASSERT_EQ(header.codec, chunk::Codec::zstd);
  header.raw_bytes = 1000;
  std::array<char, chunk::kFrameHeaderBytes> head{};
  chunk::encode_header(header, head);
  auto bomb = std::string(head.begin(), head.end()) + frames.substr(chunk::kFrameHeaderBytes);
  EXPECT_FALSE(store(bomb).has_value());
  // Cut short, and rubbish.
  EXPECT_FALSE(store(frames.substr(0, frames.size() - 1)).has_value());
  EXPECT_FALSE(store(std::string(5000, 'r')).has_value());
  auto client = chunk_client(url_, 1, "PUT");
  const std::vector ids{wrong, ChunkId::of(honest)};
  auto missing = client.missing(ids, {});
  ASSERT_TRUE(missing.has_value());
  EXPECT_EQ(*missing, (std::vector{true, true}));
  EXPECT_TRUE(store(frames).has_value()) << "the server goes on";
}

TEST_F(Submit, ManifestWithoutItsChunksIsRefused) {
  const CutDisk disk(noise(8 << 20, 1));
  expect_refused(publish(disk.map.manifest().encode()), ErrorCode::corrupt, "not in the store");
  // All but one chunk.
  auto most = disk.content;
  const auto left_out = disk.map.at(77);
  most.erase(left_out);
  ASSERT_TRUE(store(frames_of(most)).has_value());
  expect_refused(publish(disk.map.manifest().encode()), ErrorCode::corrupt, left_out.hex());
  ASSERT_TRUE(store(frames_of({{left_out, disk.content.at(left_out)}})).has_value());
  EXPECT_TRUE(publish(disk.map.manifest().encode()).has_value());
}

TEST_F(Submit, ManifestThatLiesIsRefused) {
  const CutDisk disk(noise(8 << 20, 1));
  ASSERT_TRUE(store(frames_of(disk.content)).has_value());
  const auto honest = disk.map.manifest();
  auto lie = honest;
  lie.data_bytes -= chunk::kChunkBytes;
  expect_refused(publish(lie.encode()), ErrorCode::corrupt, "bytes of data");
  lie = honest;
  lie.groups.push_back(lie.groups.back());
  expect_refused(publish(lie.encode()), ErrorCode::corrupt, "");
  lie = honest;
  std::swap(lie.groups[0], lie.groups[1]);
  EXPECT_FALSE(publish(lie.encode()).has_value());
  lie = honest;
  lie.disk_bytes = 4 << 20;
  EXPECT_FALSE(publish(lie.encode()).has_value()) << "a group beyond the disk";
  lie = honest;
  lie.groups[1].id = ChunkId::of(std::string_view(disk.content.begin()->second));
  EXPECT_FALSE(publish(lie.encode()).has_value()) << "a chunk that is no group";
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, (std::uint64_t{8} << 20) - 1}) {
    lie = honest;
    lie.disk_bytes = size;
    EXPECT_FALSE(publish(lie.encode()).has_value()) << size;
  }
  lie = honest;
  lie.disk_bytes = std::uint64_t{4} << 40;
  expect_refused(publish(lie.encode()), ErrorCode::too_large, "limit");
  const auto text = honest.encode();
  for (const auto& bad :
       {std::string(), text.substr(0, text.size() - 1), text + "x", std::string(70000, 'm')}) {
    EXPECT_FALSE(publish(bad).has_value());
  }
  EXPECT_FALSE(is_published(1));
  EXPECT_TRUE(publish(text).has_value());
}

TEST_F(Submit, ChunkOfAnotherLengthThanItsPlaceIsRefused) {
  // A short chunk in the middle of the disk: a node would not know where the next one begins.
  CutDisk disk(noise(1 << 20, 1));
  const std::string small = noise(512, 2);
  disk.map.set(3, ChunkId::of(small));
  disk.content[ChunkId::of(small)] = small;
  const auto& group = disk.map.groups().at(0);
  disk.content[ChunkId::of(group.encode())] = group.encode();
  ASSERT_TRUE(store(frames_of(disk.content)).has_value());
  expect_refused(publish(disk.map.manifest().encode()), ErrorCode::corrupt, "512");
}

TEST_F(Submit, AMillionHoles) {
  const std::uint64_t chunks = 2'000'000;
  CutDisk disk("");
  disk.map = chunk::DiskMap(chunks * chunk::kChunkBytes);
  const std::string data(chunk::kChunkBytes, 'd');
  const auto id = ChunkId::of(data);
  disk.content[id] = data;
  for (std::uint64_t i = 0; i < chunks; i += 2) disk.map.set(i, id);
  for (const auto& [index, group] : disk.map.groups()) {
    disk.content[ChunkId::of(group.encode())] = group.encode();
  }
  const auto begun = std::chrono::steady_clock::now();
  const auto done = submit_disk(url_, disk, 1);
  ASSERT_TRUE(done.receipt.has_value()) << done.receipt.error().message;
  const auto took = std::chrono::steady_clock::now() - begun;
  EXPECT_LT(took, std::chrono::seconds(30));
  const std::chrono::duration<double> seconds = took;
  RecordProperty("seconds", std::to_string(seconds.count()));
  EXPECT_EQ(transfer::verify_receipt(kKey, *done.receipt)->size_bytes,
            static_cast<std::int64_t>(chunks / 2 * chunk::kChunkBytes));
}

TEST_F(Submit, GrantsOfOthersAndOfYesterdayAreRefused) {
  const CutDisk disk(noise(1 << 20, 1));
  const auto try_with = [&](const std::string& grant_text) {
    transfer::ChunkRemote remote;
    remote.base = *http::Url::parse(url_);
    remote.imgid = kImage;
    remote.version = 1;
    remote.grant = grant_text;
    transfer::ChunkClient client(std::move(remote));
    auto missing = client.missing(disk.ids(), {});
    return missing ? ErrorCode::internal : missing.error().code;
  };
  const auto path = transfer::version_path(kImage, 1);
  const auto now = SystemClock().wall_ms() / 1000;
  EXPECT_EQ(try_with(transfer::sign_grant(kKey, {"GET", path, "nc1", now + 60})),
            ErrorCode::permission_denied);
  EXPECT_EQ(try_with(transfer::sign_grant(kKey, {"PUT", path, "nc1", now - 1})),
            ErrorCode::permission_denied);
  EXPECT_EQ(try_with(transfer::sign_grant(kKey, {"PUT", transfer::version_path(kImage, 2), "nc1", now + 60})),
            ErrorCode::permission_denied);
  EXPECT_EQ(try_with(transfer::sign_grant(std::string(64, 'a'), {"PUT", path, "nc1", now + 60})),
            ErrorCode::permission_denied);
}

TEST_F(Submit, TenVersionsCostOne) {
  auto disk = noise(32 << 20, 1);
  std::mt19937 random(7);
  ASSERT_TRUE(submit(disk, 1).receipt.has_value());
  const auto first = store_figures(config_.common.prefix)->stored_bytes;
  std::string last;
  for (int version = 2; version <= 10; ++version) {
    for (int i = 0; i < 5; ++i) disk[random() % disk.size()] ^= 1;
    ASSERT_TRUE(submit(disk, version, parent_of(version - 1), parent_of(version - 1)).receipt.has_value());
  }
  auto figures = store_figures(config_.common.prefix);
  ASSERT_TRUE(figures.has_value());
  EXPECT_EQ(figures->data_bytes, 10ull * (32 << 20));
  EXPECT_LT(figures->stored_bytes, first * 12 / 10);
  EXPECT_LT(figures->disk_bytes, first * 13 / 10);
  EXPECT_EQ(content(10), disk);
}

}  // namespace
}  // namespace educloud::walrus
