#include <gmock/gmock.h>

#include "common/sys/process.hpp"
#include "integration/nc/libvirt_guest.hpp"
#include "integration/nc/reading_guest.hpp"
#include "nc/domain/seed.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;

/// A guest that says something every 20 ms as long as it runs.
class LibvirtOperations : public LibvirtGuest {
 protected:
  VmSpec talking() {
    auto made = spec();
    std::ofstream(made.disk.front().file, std::ios::binary) << reading_guest_disk();
    return made;
  }
  /// Once it says more than now.
  bool goes_on(const VmSpec& vm) {
    const auto before = console(vm).size();
    return eventually([&] { return console(vm).size() > before + 5; });
  }
  static std::size_t boots(const VmSpec& vm) {
    const auto said = console(vm);
    std::size_t count = 0;
    for (auto at = said.find("up"); at != said.npos; at = said.find("up", at + 1)) ++count;
    return count;
  }
  double cpu_seconds(const InstanceId& insid) {
    const auto all = hypervisor_->list();
    for (const auto& vm : *all) {
      if (vm.insid == insid) return static_cast<double>(vm.cpu_time_ns) / 1e9;
    }
    return 0;
  }
};

TEST_F(LibvirtOperations, PauseAndResume) {
  const auto vm = talking();
  ASSERT_TRUE(hypervisor_->define_and_start(vm));
  ASSERT_TRUE(goes_on(vm));
  const auto paused = hypervisor_->pause(vm.insid);
  ASSERT_TRUE(paused) << paused.error().message;
  EXPECT_TRUE(events_.wait(VmEvent::Kind::paused, vm.insid.str()));
  EXPECT_EQ(*hypervisor_->state(vm.insid), VmState::paused);
  EXPECT_EQ(hypervisor_->list()->front().state, VmState::paused);
  EXPECT_TRUE(hypervisor_->pause(vm.insid));
  const auto said = console(vm).size();
  const auto used = cpu_seconds(vm.insid);
  events_.forget();
  ASSERT_TRUE(hypervisor_->resume(vm.insid));
  EXPECT_LT(cpu_seconds(vm.insid) - used, 5.0);
  EXPECT_TRUE(hypervisor_->resume(vm.insid));
  EXPECT_TRUE(events_.wait(VmEvent::Kind::resumed, vm.insid.str()));
  EXPECT_TRUE(eventually([&] { return console(vm).size() > said; }));
  EXPECT_EQ(hypervisor_->pause(*InstanceId::parse("VD0000dead")).error().code, ErrorCode::not_found);
}

TEST_F(LibvirtOperations, AResetBeginsAgain) {
  const auto vm = talking();
  ASSERT_TRUE(hypervisor_->define_and_start(vm));
  ASSERT_TRUE(goes_on(vm));
  EXPECT_EQ(boots(vm), 1u);
  EXPECT_TRUE(hypervisor_->reboot(vm.insid));  // it has no ACPI: nothing follows
  const auto reset = hypervisor_->reset(vm.insid);
  ASSERT_TRUE(reset) << reset.error().message;
  EXPECT_TRUE(events_.wait(VmEvent::Kind::rebooted, vm.insid.str()));
  EXPECT_TRUE(eventually([&] { return boots(vm) == 2; })) << console(vm);
  EXPECT_EQ(*hypervisor_->guest_facts(vm.insid), GuestFacts{});
}

TEST_F(LibvirtOperations, LimitsAreInTheDomainAndChangeLive) {
  auto vm = talking();
  vm.limits = {.cpu_percent = 25, .cpu_weight = 50, .disk_iops = 20, .disk_mib_s = 1, .net_mbit_s = 0};
  const auto started = hypervisor_->define_and_start(vm);
  ASSERT_TRUE(started) << started.error().message;
  const auto xml = [&] {
    const auto dumped =
        sys::run_checked({.argv = {"virsh", "-c", shared_->uri(), "dumpxml", vm.insid.str()}});
    return dumped ? *dumped : dumped.error().message;
  };
  EXPECT_THAT(xml(), HasSubstr("<quota>25000</quota>"));
  EXPECT_THAT(xml(), HasSubstr("<total_iops_sec>20</total_iops_sec>"));
  ASSERT_TRUE(goes_on(vm));
  const auto used = cpu_seconds(vm.insid);
  const auto begun = std::chrono::steady_clock::now();
  ASSERT_TRUE(eventually([&] { return std::chrono::steady_clock::now() - begun > std::chrono::seconds{4}; }));
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begun;
  // Its loop would take a whole cpu; QEMU's other threads come on top of the
  // vcpu's quarter.
  EXPECT_LT((cpu_seconds(vm.insid) - used) / passed.count(), 0.5);
  const auto changed = hypervisor_->set_limits(vm.insid, {.cpu_percent = 60, .disk_iops = 300});
  ASSERT_TRUE(changed) << changed.error().message;
  EXPECT_THAT(xml(), HasSubstr("<quota>60000</quota>"));
  EXPECT_THAT(xml(), HasSubstr("<total_iops_sec>300</total_iops_sec>"));
  EXPECT_THAT(xml(), ::testing::Not(HasSubstr("<total_bytes_sec>")));
  const auto lifted = hypervisor_->set_limits(vm.insid, {});
  ASSERT_TRUE(lifted) << lifted.error().message;
  EXPECT_THAT(xml(), ::testing::Not(HasSubstr("<total_iops_sec>")));
  EXPECT_TRUE(goes_on(vm));
}

constexpr std::chrono::seconds kBoot{180};  ///< of a whole Linux under TCG on a busy machine

/// Debian's kernel and busybox, with a guest agent
/// (scripts/build-sample-image).
class SampleGuest : public LibvirtOperations {
 protected:
  VmSpec sample() {
    const auto image = shared_->directory() / "sample.qcow2";
    if (!std::filesystem::exists(image)) {
      sys::ProcessOptions build{
          .argv = {EDUCLOUD_SOURCE_DIR "/scripts/build-sample-image", "--out", image.string()}};
      build.timeout = std::chrono::minutes{5};
      const auto built = sys::run_checked(build);
      EXPECT_TRUE(built) << built.error().message;
    }
    auto made = spec();
    const auto overlay = shared_->directory() / made.insid.str() / "overlay.qcow2";
    std::filesystem::remove(overlay);
    const auto on_top = sys::run_checked({.argv = {"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2",
                                                   "-b", image.string(), overlay.string()}});
    EXPECT_TRUE(on_top) << on_top.error().message;
    made.memory_mib = 128;
    made.disk = {{overlay, "qcow2"}, {image, "qcow2"}};
    return made;
  }
  bool says(const VmSpec& vm, const std::string& word) {
    return eventually([&] { return console(vm).find(word) != std::string::npos; }, kBoot);
  }
};

TEST_F(SampleGuest, ReadsItsFirstBootDiskAndRestartsWhenAsked) {
  auto vm = sample();
  vm.seed = shared_->directory() / vm.insid.str() / "seed.img";
  std::ofstream(vm.seed, std::ios::binary)
      << seed_disk(vm.insid, {"pc-7", "alice", "ssh-ed25519 AAAA alice@school", "$6$salt$hash"});
  const auto checked = sys::run({.argv = {"fsck.vfat", "-n", vm.seed.string()}});
  ASSERT_TRUE(checked);
  EXPECT_EQ(checked->exit_code, 0) << checked->out << checked->err;
  const auto started = hypervisor_->define_and_start(vm);
  ASSERT_TRUE(started) << started.error().message;
  ASSERT_TRUE(says(vm, "sample guest ready")) << console(vm);
  EXPECT_THAT(console(vm), HasSubstr("sample guest pc-7 "));
  EXPECT_THAT(console(vm), HasSubstr("boots=1 "));
  EXPECT_THAT(console(vm), HasSubstr("user=alice keys=1"));
  EXPECT_TRUE(eventually(
      [&] {
        const auto facts = hypervisor_->guest_facts(vm.insid);
        return facts && facts->hostname == "pc-7" && facts->ip == "10.0.2.15";
      },
      kBoot));
  const auto asked = hypervisor_->reboot(vm.insid);
  ASSERT_TRUE(asked) << asked.error().message;
  EXPECT_TRUE(eventually([&] { return events_.wait(VmEvent::Kind::rebooted, vm.insid.str()); }, kBoot));
  EXPECT_TRUE(says(vm, "boots=2 ")) << console(vm);
  EXPECT_EQ(*hypervisor_->state(vm.insid), VmState::running);
}

TEST_F(SampleGuest, OnAnIdeBusReadsItToo) {
  auto vm = sample();
  vm.disk_bus = "ide";
  vm.seed = shared_->directory() / vm.insid.str() / "seed.img";
  std::ofstream(vm.seed, std::ios::binary) << seed_disk(vm.insid, {"pc-8", "bob", {}, {}});
  const auto started = hypervisor_->define_and_start(vm);
  ASSERT_TRUE(started) << started.error().message;
  ASSERT_TRUE(says(vm, "sample guest ready")) << console(vm);
  EXPECT_THAT(console(vm), HasSubstr("sample guest pc-8 "));
}

}  // namespace
}  // namespace educloud::nc
