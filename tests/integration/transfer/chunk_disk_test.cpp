#include <map>

#include "common/sys/process.hpp"
#include "integration/transfer/chunk_fixture.hpp"

namespace educloud::transfer {
namespace {

using chunk::ChunkId;
using chunk::kChunkBytes;

/// A disk with holes at both ends and in the middle, over several groups, whose last chunk is short.
class ChunkDisk : public ChunkTest {
 protected:
  static constexpr std::uint64_t kDisk = 200ull * kChunkBytes + 1234;

  void SetUp() override {
    std::map<std::uint64_t, std::string> chunks;
    for (std::uint64_t number : {3, 4, 5, 63, 64, 70, 130, 131, 199, 200}) {
      const std::size_t size = number == 200 ? 1234 : kChunkBytes;
      chunks[number] = chunk_bytes(number, size);
    }
    disk_.assign(kDisk, '\0');
    for (const auto& [number, raw] : chunks) disk_.replace(number * kChunkBytes, raw.size(), raw);
    map_ = source_.add_disk(kDisk, chunks, true);
  }
  http::ClientResponse get(std::string_view below, http::Headers headers = {}, std::string method = "GET") {
    http::ClientOptions options = client_options_;
    options.body_limit = 1u << 30;
    http::Client client(*http::Url::parse(url(!options.tls_ca_file.empty())), options);
    auto answer = client.send({std::move(method), path(below) + "?" + grant("GET"), std::move(headers)});
    EXPECT_TRUE(answer) << answer.error().message;
    return answer ? *answer : http::ClientResponse{};
  }
  std::string digest() const { return map_.manifest().digest().hex(); }
  /// curl(1), which takes the URL from standard input: a grant belongs in no command line.
  std::string curl(std::string_view below, std::vector<std::string> arguments) {
    const auto config =
        dir_.write("curl.conf", "url = \"" + url() + path(below) + "?" + grant("GET") + "\"\n");
    std::vector<std::string> argv = {"curl",   "--silent", "--show-error",
                                     "--fail", "--config", config.string()};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    sys::ProcessOptions options;
    options.argv = argv;
    options.output_limit = 64u << 20;
    auto done = sys::run_checked(options);
    EXPECT_TRUE(done) << done.error().message;
    return done.value_or("");
  }

  std::string disk_;
  chunk::DiskMap map_;
};

TEST_F(ChunkDisk, TheWholeDiskAndPartsOfIt) {
  start();
  const auto whole = get("/raw");
  EXPECT_EQ(whole.status, 200);
  EXPECT_EQ(whole.header("ETag"), "\"" + digest() + "\"");
  EXPECT_EQ(whole.header("Content-Length"), std::to_string(kDisk));
  EXPECT_TRUE(whole.body == disk_);
  const auto head = get("/raw", {}, "HEAD");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.header("Content-Length"), std::to_string(kDisk));
  EXPECT_EQ(head.body, "");
  std::mt19937_64 random(3);
  for (int i = 0; i < 60; ++i) {
    std::uint64_t from = random() % kDisk;
    std::uint64_t to = from + random() % (i % 2 == 0 ? 1000 : 5'000'000);
    if (i == 0) from = 3 * kChunkBytes, to = 4 * kChunkBytes - 1;
    if (i == 1) from = to = kDisk - 1;
    if (i == 2) from = 0, to = 0;
    const auto part = get("/raw", {{"Range", "bytes=" + std::to_string(from) + "-" + std::to_string(to)}});
    ASSERT_EQ(part.status, 206);
    ASSERT_TRUE(part.body == disk_.substr(from, to - from + 1)) << from << "-" << to;
  }
  EXPECT_EQ(get("/raw", {{"Range", "bytes=" + std::to_string(kDisk) + "-"}}).status, 416);
  EXPECT_EQ(get("/raw", {{"If-None-Match", "\"" + digest() + "\""}}).status, 304);
  EXPECT_EQ(get("/raw", {{"Range", "bytes=0-9"}, {"If-Range", "\"other\""}}).body.size(), kDisk);
}

TEST_F(ChunkDisk, EmptyAndTinyDisks) {
  map_ = source_.add_disk(0, {}, false);
  start();
  EXPECT_EQ(get("/raw").status, 200);
  EXPECT_EQ(get("/raw").body, "");
  map_ = source_.add_disk(1, {{0, "x"}}, false);
  EXPECT_EQ(get("/raw").body, "x");
  map_ = source_.add_disk(1, {}, false);
  EXPECT_EQ(get("/raw").body, std::string(1, '\0'));
}

TEST_F(ChunkDisk, WhatIsDamagedIsNeverSentAsWhole) {
  start();
  source_.add_lie(map_.at(131), std::string(100, 'x'));
  http::Client client(*http::Url::parse(url()), {.body_limit = 1u << 30});
  EXPECT_FALSE(client.send({"GET", path("/raw?") + grant("GET")})) << "cut";
  EXPECT_EQ(get("/chunks/" + map_.at(131).hex()).status, 422);
  EXPECT_EQ(get("/chunks/" + map_.at(130).hex()).body, disk_.substr(130 * kChunkBytes, kChunkBytes));
  // A manifest that gives a chunk a place of another length.
  chunk::DiskMap lie(2 * kChunkBytes);
  lie.set(0, map_.at(200));
  for (const auto& [index, group] : lie.groups()) source_.add(group.encode(), false);
  source_.manifest_ = lie.manifest().encode();
  EXPECT_EQ(get("/raw").status, 422);
}

TEST_F(ChunkDisk, AMapIsFetchedWithWhatIsHereAlready) {
  start();
  auto client = reader();
  const auto manifest = client.manifest(map_.manifest().digest(), {});
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(client.manifest(ChunkId::of(std::string("other")), {}).error().code, ErrorCode::corrupt);
  const auto all = fetch_map(client, *manifest, {}, {});
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_EQ(all->manifest(), map_.manifest());
  for (std::uint64_t i = 0; i <= 200; ++i) EXPECT_EQ(all->at(i), map_.at(i));

  // A second version that differs in its last group: the others are not asked for.
  for (const auto& [index, group] : map_.groups()) source_.frames_.erase(ChunkId::of(group.encode()));
  chunk::DiskMap next = map_;
  next.set(140, source_.add(chunk_bytes(900), false));
  source_.add(next.groups().at(2).encode(), false);
  next.set(200, map_.at(200));
  const chunk::DiskMap* have[] = {&map_};
  source_.frames_.erase(ChunkId::of(next.groups().at(3).encode()));
  const auto second = fetch_map(client, next.manifest(), have, {});
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(second->manifest(), next.manifest());
  EXPECT_EQ(fetch_map(client, next.manifest(), {}, {}).error().code, ErrorCode::not_found);
  auto lie = next.manifest();
  lie.data_bytes -= kChunkBytes;
  EXPECT_EQ(fetch_map(client, lie, have, {}).error().code, ErrorCode::corrupt);
}

TEST_F(ChunkDisk, CurlCanUseIt) {
  start();
  EXPECT_TRUE(curl("/raw", {}) == disk_);
  EXPECT_TRUE(curl("/raw", {"--range", "200000-300000"}) == disk_.substr(200000, 100001));
  const std::string head = curl("/raw", {"--head"});
  EXPECT_NE(head.find("Content-Length: " + std::to_string(kDisk)), std::string::npos) << head;
  EXPECT_EQ(ChunkId::of(curl("/manifest", {})), map_.manifest().digest());
  const auto id = map_.at(64);
  const auto file = dir_ / "chunk";
  curl("/chunks/" + id.hex(), {"--output", file.string()});
  sys::ProcessOptions sum;
  sum.argv = {"sha256sum", file.string()};
  EXPECT_TRUE(sys::run_checked(sum).value_or("").starts_with(id.hex() + " "));
  const auto ids = dir_.write("ids", chunk::encode_ids(std::vector{map_.at(3), map_.at(4)}));
  const std::string frames =
      curl("/chunks:fetch", {"--data-binary", "@" + ids.string(), "--header", "Content-Type:"});
  std::vector<ChunkId> seen;
  chunk::FrameReader frame_reader([&](const chunk::FrameHeader& header, std::span<const char>) -> Result<> {
    seen.push_back(header.id);
    return {};
  });
  ASSERT_TRUE(frame_reader.feed(frames));
  EXPECT_TRUE(frame_reader.finish());
  EXPECT_EQ(seen, (std::vector{map_.at(3), map_.at(4)}));
}

TEST_F(ChunkDisk, TheSameOverTls) {
  const std::string d = dir_.path().string() + "/";
  sys::ProcessOptions make;
  make.argv = {"openssl",
               "req",
               "-x509",
               "-newkey",
               "ec",
               "-pkeyopt",
               "ec_paramgen_curve:P-256",
               "-nodes",
               "-keyout",
               d + "key.pem",
               "-out",
               d + "cert.pem",
               "-subj",
               "/CN=test",
               "-days",
               "2",
               "-addext",
               "subjectAltName=IP:127.0.0.1"};
  const auto made = sys::run_checked(make);
  ASSERT_TRUE(made) << made.error().message;
  server_options_.tls_certificate_file = d + "cert.pem";
  server_options_.tls_key_file = d + "key.pem";
  client_options_.tls_ca_file = d + "cert.pem";
  start();
  EXPECT_TRUE(get("/raw").body == disk_);
  std::vector<ChunkId> ids;
  for (std::uint64_t number : {200, 3, 64, 131}) ids.push_back(map_.at(number));
  for (int i = 0; i < 50; ++i)
    ids.push_back(source_.add(chunk_bytes(1000u + static_cast<unsigned>(i)), i % 2 == 0));
  auto client = reader();
  for (int round = 0; round < 3; ++round) {
    const auto got = fetch(client, ids);
    ASSERT_TRUE(got) << got.error().message;
    for (std::size_t i = 0; i < ids.size(); ++i) ASSERT_EQ(ChunkId::of((*got)[i]), ids[i]);
  }
  auto submitting = writer();
  std::string frames;
  chunk::FrameEncoder encoder;
  for (unsigned i = 0; i < 30; ++i) ASSERT_TRUE(encoder.append(chunk_bytes(i), frames));
  EXPECT_TRUE(submitting.store(frames, {}));
  EXPECT_EQ(sink_.chunks_.size(), 30u);
}

}  // namespace
}  // namespace educloud::transfer
