#include <gtest/gtest.h>

#include "common/base/ids.hpp"
#include "integration/cc/relay_fixture.hpp"
#include "walrus/store/chunk_service.hpp"
#include "walrus/store/publish.hpp"

namespace educloud::test {
namespace {

const std::string kImage = "IMG0000000a";

/// walrus' own store and routes, in this process.
class RealWalrus {
 public:
  explicit RealWalrus(const std::filesystem::path& prefix)
      : versions_(*image::VersionStore::open(prefix, options())),
        chunks_(*chunk::ChunkStore::open(prefix / "chunks", {})),
        publisher_(*versions_, *chunks_, chunk::kMaxDiskBytes),
        source_(*versions_, *chunks_),
        sink_(*chunks_, publisher_, {.prefix = prefix, .data_key = kDataKey}),
        routes_({kDataKey, &clock_}, source_, &sink_),
        server_({}, router()) {
    auto started = server_.start();
    if (!started) std::abort();
  }
  ~RealWalrus() {
    routes_.stop();
    server_.stop();
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(server_.port()); }
  Result<std::optional<int>> current() const { return versions_->current(kImage); }

 private:
  static image::VersionStore::Options options() {
    image::VersionStore::Options out;
    out.payload = "manifest";
    return out;
  }
  http::Router router() {
    http::Router out;
    routes_.add_routes(out);
    return out;
  }

  const SystemClock clock_;
  std::unique_ptr<image::VersionStore> versions_;
  std::unique_ptr<chunk::ChunkStore> chunks_;
  walrus::Publisher publisher_;
  walrus::StoreSource source_;
  walrus::StoreSink sink_;
  transfer::ChunkRoutes routes_;
  http::Server server_;
};

TEST(RelayToWalrus, SubmitsThroughOneRelayAreReadThroughAnother) {
  const testing::TempDir walrus_dir, here, there;
  RealWalrus walrus(walrus_dir.path());
  Relay near(here.path(), walrus.url(), {});
  Relay far(there.path(), walrus.url(), {});
  const SampleDisk first(120, 1), second(150, 2), late(3, 3);
  const auto submit = [&](const SampleDisk& disk, int version, const std::string& if_current) {
    Node node(near.url(), "nc1", kImage, version, transfer::Priority::user, "PUT");
    std::string frames;
    for (const auto& id : disk.order) frames += disk.frames.at(id);
    auto sent = node->store(frames, {});
    EXPECT_TRUE(sent) << sent.error().message;
    const auto parent = version > 1 ? transfer::make_parent(kImage, 1) : std::string();
    return node->publish({disk.manifest(), parent, if_current, new_command_id().str()}, {});
  };
  auto receipt = submit(first, 1, "");
  ASSERT_TRUE(receipt) << receipt.error().message;
  receipt = submit(second, 2, transfer::make_parent(kImage, 1));
  ASSERT_TRUE(receipt) << receipt.error().message;
  EXPECT_EQ(transfer::verify_receipt(kDataKey, *receipt)->digest, second.digest().hex());
  auto refused = submit(late, 3, transfer::make_parent(kImage, 1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
  EXPECT_NE(refused.error().message.find(transfer::make_parent(kImage, 2)), std::string::npos)
      << refused.error().message;

  for (const auto* relay : {&near, &far}) {
    auto ok = Node(relay->url(), "nc2", kImage, 1).fetch_all(first);
    EXPECT_TRUE(ok) << ok.error().message;
    ok = Node(relay->url(), "nc2", kImage, 2).fetch_all(second);
    EXPECT_TRUE(ok) << ok.error().message;
  }
  EXPECT_EQ(walrus.current().value(), 2);
}

}  // namespace
}  // namespace educloud::test
