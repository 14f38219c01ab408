#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "nc/app/image_tools.hpp"

namespace educloud::nc {
namespace {

TEST(Cache, MakesRoomLeastRecentlyUsedFirstAndSparesWhatIsKept) {
  char pattern[] = "/tmp/educloud-cache-XXXXXX";
  const std::filesystem::path prefix = mkdtemp(pattern);
  auto store = *image::VersionStore::open(prefix, {.is_cache = true});
  for (const int version : {1, 2, 3}) {
    const auto file = *store->staging("v" + std::to_string(version));
    std::ofstream(file) << "version";
    ASSERT_TRUE(store->publish(file, {"IMG00000001", version, std::string(64, 'a'), 7, 7}));
    ASSERT_TRUE(store->set_current("IMG00000001", version));
  }
  auto tools = make_image_tools({.cc = *http::Url::parse("http://127.0.0.1:1")}, *store);
  tools->make_room(0, {});
  EXPECT_EQ(tools->cached().size(), 3U) << "there is room";
  tools->make_room(std::numeric_limits<std::uint64_t>::max(), {{"IMG00000001", 2}});
  ASSERT_EQ(tools->cached().size(), 1U);
  EXPECT_EQ(tools->cached()[0].version, 2);
  std::filesystem::remove_all(prefix);
}

}  // namespace
}  // namespace educloud::nc
