#include "integration/transfer/chunk_fixture.hpp"

namespace educloud::transfer {
namespace {

using chunk::ChunkId;

class ChunkSubmit : public ChunkTest {
 protected:
  std::string frames(int count) {
    std::string out;
    chunk::FrameEncoder encoder;
    for (int i = 0; i < count; ++i) {
      raw_.push_back(chunk_bytes(static_cast<std::uint64_t>(i)));
      ids_.push_back(ChunkId::of(raw_.back()));
      EXPECT_TRUE(encoder.append(raw_.back(), out));
    }
    return out;
  }
  std::vector<std::string> raw_;
  std::vector<ChunkId> ids_;
};

TEST_F(ChunkSubmit, WhatIsMissingIsStoredAndPublished) {
  const std::string some = frames(100);
  start();
  auto client = writer();
  ASSERT_TRUE(client.store(some, {}));
  EXPECT_EQ(sink_.chunks_.size(), 100u);
  EXPECT_EQ(sink_.flushes_, 1);
  EXPECT_EQ(sink_.caller_.node, "nc1");
  for (std::size_t i = 0; i < ids_.size(); ++i) EXPECT_TRUE(sink_.chunks_[ids_[i]] == raw_[i]);

  // More than one request's worth, every seventh is there.
  std::vector<ChunkId> asked;
  for (std::size_t i = 0; i < 2 * kMaxIds + 5; ++i) {
    asked.push_back(i % 7 == 0 ? ids_[i % 100] : ChunkId::of(std::to_string(i)));
  }
  const auto missing = client.missing(asked, {});
  ASSERT_TRUE(missing) << missing.error().message;
  ASSERT_EQ(missing->size(), asked.size());
  for (std::size_t i = 0; i < asked.size(); ++i) EXPECT_EQ((*missing)[i], i % 7 != 0) << i;

  chunk::DiskMap map(100 * chunk::kChunkBytes);
  for (std::size_t i = 0; i < ids_.size(); ++i) map.set(i, ids_[i]);
  ChunkClient::Publish publish;
  publish.manifest = map.manifest().encode();
  publish.parent = kChunkImage + "/2";
  publish.if_current = kChunkImage + "/2";
  publish.cmdid = "01890a5d-ac96-774b-bcce-b302099a8057";
  const auto receipt = client.publish(publish, {});
  ASSERT_TRUE(receipt) << receipt.error().message;
  EXPECT_EQ(*receipt, "the receipt");
  EXPECT_EQ(sink_.published_.manifest, publish.manifest);
  EXPECT_EQ(sink_.published_.parent, publish.parent);
  EXPECT_EQ(sink_.published_.if_current, publish.if_current);
  EXPECT_EQ(sink_.published_.cmdid, publish.cmdid);

  sink_.current_ = kChunkImage + "/7";
  const auto late = client.publish(publish, {});
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::conflict);
  EXPECT_EQ(late.error().message, kChunkImage + "/7 is in use now, not " + kChunkImage + "/2");
  publish.if_current.clear();
  EXPECT_TRUE(client.publish(publish, {})) << "no condition";
}

TEST_F(ChunkSubmit, FramesThatLieAreRefused) {
  const std::string good = frames(3);
  start();
  auto client = writer();
  std::string flipped = good;
  flipped.back() ^= 1;
  EXPECT_EQ(client.store(flipped, {}).error().code, ErrorCode::corrupt);
  EXPECT_EQ(client.store(std::string_view(good).substr(0, good.size() - 1), {}).error().code,
            ErrorCode::corrupt);
  EXPECT_EQ(client.store(std::string(1000, 'x'), {}).error().code, ErrorCode::corrupt);
  EXPECT_EQ(sink_.flushes_, 0);
  EXPECT_TRUE(client.store(good, {}));
  EXPECT_EQ(client.store(std::string(kMaxStoreBytes + 1, 'x'), {}).error().code, ErrorCode::invalid_argument);
}

TEST_F(ChunkSubmit, RequestsAreChecked) {
  const std::string good = frames(1);
  start();
  http::Client client(*http::Url::parse(url()));
  const auto status = [&](std::string method, std::string target, std::string body,
                          http::Headers headers = {}) {
    auto answer = client.send({method, target, headers, body});
    return answer ? answer->status : -1;
  };
  const std::string put = version_path(kChunkImage, 3) + "?" + grant("PUT");
  const std::string manifest = chunk::DiskMap(0).manifest().encode();
  EXPECT_EQ(status("PUT", put, manifest), 201);
  EXPECT_EQ(status("PUT", put, manifest, {{"If-Match", "*"}}), 201);
  EXPECT_EQ(sink_.published_.if_current, "");
  EXPECT_EQ(status("PUT", put, manifest, {{"If-Match", "\"" + kChunkImage + "/2\""}}), 201);
  EXPECT_EQ(status("PUT", put, manifest, {{"If-Match", "\"" + kChunkImage + "/1\""}}), 409);
  for (const char* bad :
       {"IMG0a1b2c3d/2", "\"\"", "\"", "\"IMG0a1b2c3d\"", "W/\"IMG0a1b2c3d/2\"", "\"../2\""}) {
    EXPECT_EQ(status("PUT", put, manifest, {{"If-Match", bad}}), 400) << bad;
  }
  EXPECT_EQ(status("PUT", put, manifest, {{"Educloud-Parent", "x"}}), 400);
  EXPECT_EQ(status("PUT", put, manifest, {{"Educloud-Cmdid", "x"}}), 400);
  EXPECT_EQ(status("PUT", put, manifest + "x"), 422);
  EXPECT_EQ(status("PUT", put, ""), 422);
  EXPECT_EQ(status("PUT", version_path(kChunkImage, 3) + "?" + grant("GET"), manifest), 403);
  EXPECT_EQ(status("PUT", version_path(kChunkImage, 3) + "?" + grant("PUT", "nc1", -5), manifest), 403);
  const std::string store = path("/chunks:store?");
  EXPECT_EQ(status("POST", store + grant("PUT"), good), 204);
  EXPECT_EQ(status("POST", store + grant("GET"), good), 403);
  EXPECT_EQ(status("POST", store + grant("PUT"), std::string(kMaxStoreBytes + 1, 'x')), 413);
}

}  // namespace
}  // namespace educloud::transfer
