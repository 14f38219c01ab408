#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nc/domain/paths.hpp"
#include "nc/domain/vm_spec.hpp"
#include "nc/hypervisor/domain_xml.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;

const NodeLimits kNode{.max_memory_mib = 4096, .max_cpus = 4, .advertise = "10.0.0.5", .guest_egress = false};

TEST(DiskPath, TakesExactlyTheseForms) {
  auto image = parse_disk_path("images/IMG00000001/machine");
  ASSERT_TRUE(image);
  EXPECT_EQ(image->kind, DiskPath::Kind::image);
  auto build = parse_disk_path("tmp/images/IMG0000abcd/machine");
  ASSERT_TRUE(build);
  EXPECT_EQ(build->kind, DiskPath::Kind::build);
  EXPECT_EQ(build->image.str(), "IMG0000abcd");
  EXPECT_EQ(parse_disk_path("images/data")->kind, DiskPath::Kind::data);
  const auto kept = parse_disk_path("space/database/images/IMG00000001/database");
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->kind, DiskPath::Kind::image_database);
  EXPECT_EQ(parse_disk_path("space/database/tmp/images/IMG00000001/database")->kind,
            DiskPath::Kind::build_database);
  const auto server = parse_disk_path("space/database/instances/VS0000beef/database");
  ASSERT_TRUE(server);
  EXPECT_EQ(server->kind, DiskPath::Kind::instance_database);
  EXPECT_EQ(server->instance.str(), "VS0000beef");
}

TEST(DiskPath, RefusesEverythingElse) {
  for (const char* bad : {"",
                          "/etc/passwd",
                          "images/../machine",
                          "images/IMG00000001/../../etc/shadow",
                          "images/IMG00000001/machine/",
                          "/images/IMG00000001/machine",
                          "images//machine",
                          "images/machine",
                          "images/IMG0000000G/machine",
                          "tmp/tmp/images/IMG00000001/machine",
                          "images/IMG00000001/machine\n",
                          "images/IMG00000001/machine2",
                          "nbd://host/x",
                          "json:{}",
                          "VMs/VD00000001/overlay.qcow2",
                          "images/data/",
                          "images/data/machine",
                          "space/database/instances/IMG00000001/database",
                          "space/database/images/VS00000001/database",
                          "space/database/instances/../database",
                          "space/database/images/IMG00000001/machine"}) {
    auto path = parse_disk_path(bad);
    EXPECT_FALSE(path) << bad;
    EXPECT_TRUE(path || path.error().key == "disks") << bad;
  }
}

struct Flow {
  const char* tid;
  std::vector<msg::Disk> disks;
  int extra = 0;
};
const msg::Disk kData{"images/data", "multiattach"};

Result<VmSpec> spec_of(const Flow& flow, std::uint64_t data_disk_bytes = 1 << 30) {
  msg::Command command;
  command.op = "image/run";
  command.tid = flow.tid;
  auto& option = command.runtime_option.emplace();
  option.memory_mib = 512;
  option.disks = flow.disks;
  command.database = msg::ImageVersion{"IMG000000db", 1, std::string(64, 'd'), 0, 1 << 20, "raw"};
  command.database_grant = command.database_source_grant = "g";
  auto limits = kNode;
  limits.data_disk_bytes = data_disk_bytes;
  return make_spec(command, *TaskId::parse(flow.tid), Layout("/storage"), limits);
}

constexpr const char* kServerRun = "IMG00000001:IMG00000001:VS0000beef";
constexpr const char* kModifyOne = "IMG00000001:IMG00000001:TMP0000beef";
constexpr const char* kBuildOne = "IMG00000001:IMG00000002:TMP0000beef";

TEST(DiskTable, EveryFlowHasItsDisks) {
  const std::vector<Flow> flows = {
      {kModifyOne, {{"images/IMG00000001/machine", "normal"}, kData}, 1},
      {kBuildOne, {{"tmp/images/IMG00000002/machine", "normal"}, kData}, 1},
      {kModifyOne,
       {{"images/IMG00000001/machine", "normal"},
        {"space/database/images/IMG00000001/database", "normal"},
        kData},
       2},
      {kBuildOne,
       {{"tmp/images/IMG00000002/machine", "normal"},
        {"space/database/tmp/images/IMG00000002/database", "normal"},
        kData},
       2},
      {"IMG00000001:IMG00000001:VD0000beef", {{"images/IMG00000001/machine", "multiattach"}}, 0},
      {"IMG00000001:IMG00000001:TVD0000beef", {{"images/IMG00000001/machine", "multiattach"}}, 0},
      {kServerRun,
       {{"images/IMG00000001/machine", "multiattach"},
        {"space/database/instances/VS0000beef/database", "writethrough"}},
       1},
  };
  for (const auto& flow : flows) {
    const auto spec = spec_of(flow);
    ASSERT_TRUE(spec) << flow.tid << ": " << spec.error().message;
    EXPECT_EQ(spec->extra.size(), static_cast<std::size_t>(flow.extra)) << flow.tid;
    const bool keeps = flow.disks.size() > 1 && flow.disks[1].file.ends_with("/database");
    EXPECT_EQ(has_database(*spec), keeps) << flow.tid;
    EXPECT_EQ(spec->exclusive, keeps) << "one writer in the whole cloud";
    if (keeps) {
      EXPECT_EQ(spec->extra.front().kind, ExtraDisk::Kind::database);
    }
  }
}

TEST(DiskTable, EverythingElseIsRefused) {
  const msg::Disk machine{"images/IMG00000001/machine", "multiattach"};
  const msg::Disk mine{"space/database/instances/VS0000beef/database", "writethrough"};
  const std::vector<Flow> flows = {
      {kServerRun, {machine}},
      {kServerRun, {}},
      {kServerRun, {machine, kData, mine}},
      {kServerRun, {machine, mine, mine}},
      {kServerRun, {machine, {"space/database/instances/VS0000beef/database", "normal"}}},
      {kServerRun, {machine, {"space/database/instances/VS0000dead/database", "writethrough"}}},
      {kServerRun, {machine, {"space/database/images/IMG00000001/database", "writethrough"}}},
      {kServerRun, {mine, machine}},
      {kModifyOne, {machine, kData}},
      {kModifyOne, {{"images/IMG00000001/machine", "normal"}, kData, kData}},
      {kModifyOne, {{"images/IMG00000001/machine", "normal"}, {"images/data", "normal"}}},
      {kModifyOne, {{"images/IMG00000001/machine", "normal"}, {"images/IMG00000001/machine", "normal"}}},
      {kModifyOne,
       {{"images/IMG00000001/machine", "normal"},
        {"space/database/tmp/images/IMG00000001/database", "normal"}}},
      {kBuildOne,
       {{"tmp/images/IMG00000002/machine", "normal"},
        {"space/database/tmp/images/IMG00000001/database", "normal"}}},
      {"IMG00000001:IMG00000001:VD0000beef",
       {machine, {"space/database/images/IMG00000001/database", "normal"}}},
  };
  for (std::size_t i = 0; i < flows.size(); ++i) {
    const auto spec = spec_of(flows[i]);
    ASSERT_FALSE(spec) << i;
    EXPECT_EQ(spec.error().code, ErrorCode::invalid_argument) << spec.error().message;
    EXPECT_EQ(spec.error().key, "runtime_option.disks") << i << spec.error().message;
  }
}

TEST(DiskTable, ANodeWithoutScratchDisksLeavesThemOut) {
  const auto spec = spec_of(Flow{kModifyOne, {{"images/IMG00000001/machine", "normal"}, kData}}, 0);
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_TRUE(spec->extra.empty());
}

TEST(DomainXml, AServersDisksHaveTheirOrderAndNoSecret) {
  auto spec = *spec_of(Flow{kBuildOne,
                            {{"tmp/images/IMG00000002/machine", "normal"},
                             {"space/database/tmp/images/IMG00000002/database", "normal"},
                             kData}});
  spec.disk = {{"/storage/VMs/TMP0000beef/overlay.qcow2", "qcow2"}};
  spec.extra[0].iscsi = IscsiDisk{"10.0.0.1", 3260, "iqn.2026-11.educloud:TMP0000beef", 1, "TMP0000beef"};
  spec.extra[1].layers = {{"/storage/VMs/TMP0000beef/data.qcow2", "qcow2"}, {"/storage/images/data", "raw"}};
  spec.seed = "/storage/VMs/TMP0000beef/seed.img";
  const auto xml = domain_xml(spec, {});
  EXPECT_THAT(xml, HasSubstr("<source protocol=\"iscsi\" name=\"iqn.2026-11.educloud:TMP0000beef/1\">"));
  EXPECT_THAT(xml, HasSubstr("<secret type=\"iscsi\" uuid=\"65640c10-0000-4000-8000-30000000beef\" />"));
  EXPECT_THAT(xml, HasSubstr("cache=\"writethrough\""));
  EXPECT_EQ(written_disks(xml), (std::vector<std::string>{"vda", "vdb", "vdc"}));
  spec.disk_bus = "sata";
  EXPECT_EQ(written_disks(domain_xml(spec, {})), (std::vector<std::string>{"sda", "sdb", "sdc", "sdf"}));
}

}  // namespace
}  // namespace educloud::nc
