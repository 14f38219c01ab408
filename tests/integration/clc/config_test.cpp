#include "clc/app/config.hpp"

#include <gtest/gtest.h>

#include "support/paths.hpp"
#include "support/temp_dir.hpp"

namespace educloud::clc {
namespace {

TEST(ClcConfig, TheExampleLoadsAndTellsTheDefaults) {
  const auto path = test::source_dir() / "config" / "clc.conf";
  const auto config = load_config(path);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->placement.policy, Policy::image_first);
  EXPECT_EQ(config->gate.max_parallel, 40);
  EXPECT_EQ(config->gate.slot_ms, 30'000);

  // With every commented key live, the values are the defaults that the comments claim.
  auto text = testing::slurp(path);
  for (auto at = text.find("\n#"); at != std::string::npos; at = text.find("\n#", at + 1)) {
    if (text[at + 2] != ' ') text.erase(at + 1, 1);
  }
  const testing::TempDir dir;
  const auto all = load_config(dir.write("clc.conf", text));
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_EQ(all->placement.policy, config->placement.policy);
  EXPECT_EQ(all->placement.max_cpu_usage, config->placement.max_cpu_usage);
  EXPECT_EQ(all->placement.cpu_overcommit, config->placement.cpu_overcommit);
  EXPECT_EQ(all->placement.reserve_mib, config->placement.reserve_mib);
  EXPECT_EQ(all->placement.min_disk_mib, config->placement.min_disk_mib);
  EXPECT_EQ(all->gate.max_parallel, config->gate.max_parallel);
  EXPECT_EQ(all->gate.slot_ms, config->gate.slot_ms);
  EXPECT_EQ(all->display_port_first, config->display_port_first);
  EXPECT_EQ(all->web_port_last, config->web_port_last);
  EXPECT_EQ(all->session_hours, config->session_hours);
  EXPECT_EQ(all->common.port, config->common.port);
}

TEST(ClcConfig, AWrongPlacementIsNamedWithItsKey) {
  const testing::TempDir dir;
  const auto message_of = [&](const std::string& placement) {
    const auto config =
        load_config(dir.write("clc.conf",
                              "host = \"main\"\nwalrus_url = \"http://w:1\"\ndata_key_file = \"/k\"\n"
                              "[broker]\nuser = \"clc\"\npassword_file = \"/p\"\n[placement]\n" +
                                  placement + "\n"));
    return config ? std::string() : config.error().message;
  };
  EXPECT_EQ(message_of("policy = \"pack\"\nmax_parallel_boots = 1\nboot_slot_s = 600"), "");
  EXPECT_NE(message_of("policy = \"best\"").find("none of image_first, spread, pack"), std::string::npos);
  EXPECT_NE(message_of("max_parallel_boots = 0").find("placement.max_parallel_boots"), std::string::npos);
  EXPECT_NE(message_of("boot_slot_s = 601").find("placement.boot_slot_s"), std::string::npos);
  EXPECT_NE(message_of("boot_slots = 1").find("boot_slots"), std::string::npos);
}

}  // namespace
}  // namespace educloud::clc
