#include <gmock/gmock.h>

#include "common/sys/process.hpp"
#include "integration/nc/libvirt_guest.hpp"
#include "integration/nc/reading_guest.hpp"
#include "nc/app/snapshots.hpp"
#include "nc/domain/seed.hpp"
#include "nc/hypervisor/disk_snapshots.hpp"
#include "support/paths.hpp"

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
  EXPECT_LT((cpu_seconds(vm.insid) - used) / passed.count(), 0.75);
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
          .argv = {test::source_dir() / "scripts/build-sample-image", "--out", image.string()}};
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
  /// The file's layout is the node's, so that `Snapshots` finds it.
  VmSpec with_own_disk(const std::string& insid) {
    auto made = spec(insid);
    std::filesystem::create_directories(layout().instance(made.insid));
    const auto overlay = layout().overlay(made.insid);
    std::filesystem::remove(overlay);
    const auto base = made.disk.front().file;
    std::ofstream(base, std::ios::binary) << reading_guest_disk();
    const auto on_top = sys::run_checked({.argv = {"qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw",
                                                   "-b", base.string(), overlay.string()}});
    EXPECT_TRUE(on_top) << on_top.error().message;
    made.disk = {{overlay, "qcow2"}, {base, "raw"}};
    return made;
  }
  static Layout layout() { return Layout(shared_->directory() / "prefix"); }
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

TEST_F(SampleGuest, SnapshotsOfARunningDiskComeBackByOffAndOn) {
  const auto vm = with_own_disk("TMP0000beef");
  Snapshots snapshots(layout(), *hypervisor_);
  const auto started = hypervisor_->define_and_start(vm);
  ASSERT_TRUE(started) << started.error().message;
  ASSERT_TRUE(goes_on(vm));
  const auto taken = snapshots.take(vm.insid, "snap-00000001", false, {});
  ASSERT_TRUE(taken) << taken.error().message;
  EXPECT_TRUE(snapshots.take(vm.insid, "snap-00000001", false, {}));
  EXPECT_EQ(taken->state, VmState::running);
  const auto lost = snapshots.take(vm.insid, "snap-00000002", false, {});
  ASSERT_TRUE(lost) << lost.error().message;
  ASSERT_TRUE(hypervisor_->drop_snapshot(vm.insid, layout().overlay(vm.insid), "snap-00000002"));
  const auto restored = snapshots.restore(vm.insid, "snap-00000002", {});
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_EQ(restored->snapshot, "snap-00000001");
  EXPECT_THAT(restored->prompt, HasSubstr("snap-00000002 is not in the disk any more"));
  EXPECT_EQ(restored->state, VmState::running);
  EXPECT_FALSE(std::filesystem::exists(layout().recipe(vm.insid)));
  EXPECT_TRUE(eventually([&] { return boots(vm) == 2; })) << console(vm);
  EXPECT_EQ(hypervisor_->list()->front().tid, vm.tid.str());
  // As if killed between off and on.
  const auto recipe = hypervisor_->recipe(vm.insid);
  ASSERT_TRUE(recipe);
  std::ofstream(layout().recipe(vm.insid)) << *recipe;
  ASSERT_TRUE(hypervisor_->destroy(vm.insid));
  const auto redone = snapshots.restore(vm.insid, "snap-00000001", {});
  ASSERT_TRUE(redone) << redone.error().message;
  EXPECT_EQ(*hypervisor_->state(vm.insid), VmState::running);
  // Of a stopped one, by qemu-img.
  ASSERT_TRUE(hypervisor_->destroy(vm.insid));
  ASSERT_TRUE(snapshots.take(vm.insid, "snap-00000003", true, {}));
  const auto stopped = snapshots.restore(vm.insid, "snap-00000003", {});
  ASSERT_TRUE(stopped) << stopped.error().message;
  EXPECT_FALSE(stopped->state);
  ASSERT_TRUE(snapshots.remove(vm.insid, "snap-00000003"));
  EXPECT_EQ(snapshots.restore(vm.insid, "snap-00000009", {}).error().code, ErrorCode::corrupt);
  ASSERT_TRUE(snapshots.clear(vm.insid));
  EXPECT_TRUE(list_snapshots(layout().overlay(vm.insid))->empty());
}

TEST_F(SampleGuest, AMemoryComesBackToo) {
  const auto vm = with_own_disk("TMP0000beee");
  Snapshots snapshots(layout(), *hypervisor_);
  ASSERT_TRUE(hypervisor_->define_and_start(vm));
  ASSERT_TRUE(goes_on(vm));
  const auto taken = snapshots.take(vm.insid, "snap-00000001", true, {});
  ASSERT_TRUE(taken) << taken.error().message;
  EXPECT_EQ(taken->state, VmState::running);
  EXPECT_TRUE(hypervisor_->snapshots(vm.insid, layout().overlay(vm.insid))->front().with_memory);
  ASSERT_TRUE(goes_on(vm));
  const auto restored = snapshots.restore(vm.insid, "snap-00000001", {});
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_THAT(restored->prompt, HasSubstr("with the guest's memory"));
  EXPECT_EQ(restored->state, VmState::running);
  ASSERT_TRUE(goes_on(vm));
  EXPECT_EQ(boots(vm), 1u) << "it went on and did not boot again";
  ASSERT_TRUE(hypervisor_->pause(vm.insid));
  EXPECT_EQ(snapshots.restore(vm.insid, "snap-00000001", {})->state, VmState::paused);
  ASSERT_TRUE(snapshots.remove(vm.insid, "snap-00000001"));
  EXPECT_TRUE(hypervisor_->snapshots(vm.insid, layout().overlay(vm.insid))->empty());
}

TEST_F(SampleGuest, WithFoldersByVirtiofsAMemoryIsRefused) {
  auto vm = with_own_disk("TMP0000beec");
  const auto folder = shared_->directory() / "folder";
  std::filesystem::create_directories(folder);
  vm.folders.emplace_back();
  vm.folders[0].drive = "d";
  vm.folders[0].source = folder;
  Snapshots snapshots(layout(), *hypervisor_);
  const auto started = hypervisor_->define_and_start(vm);
  ASSERT_TRUE(started) << started.error().message;
  ASSERT_TRUE(goes_on(vm));
  const auto refused = snapshots.take(vm.insid, "snap-00000001", true, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
  EXPECT_THAT(refused.error().message, HasSubstr("--folders smb"));
  EXPECT_TRUE(snapshots.take(vm.insid, "snap-00000002", false, {}));
  EXPECT_TRUE(goes_on(vm));
}

TEST_F(SampleGuest, AMemoryFitsOnlyToTheScratchDiskOfItsTime) {
  auto vm = with_own_disk("TMP0000beed");
  const auto overlay = layout().overlay(vm.insid), scratch = layout().data_overlay(vm.insid);
  const auto empty = shared_->directory() / "empty.raw";
  std::ofstream(empty).close();
  std::filesystem::resize_file(empty, 1 << 20);
  const auto make_scratch = [&] {
    std::filesystem::remove(scratch);
    return sys::run_checked({.argv = {"qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b",
                                      empty.string(), scratch.string()}});
  };
  ASSERT_TRUE(make_scratch());
  vm.extra = {{.kind = ExtraDisk::Kind::data, .layers = {{scratch, "qcow2"}, {empty, "raw"}}}};
  Snapshots snapshots(layout(), *hypervisor_);
  ASSERT_TRUE(hypervisor_->define_and_start(vm));
  ASSERT_TRUE(goes_on(vm));
  const auto taken = snapshots.take(vm.insid, "snap-00000001", true, {});
  ASSERT_TRUE(taken) << taken.error().message;
  EXPECT_TRUE(hypervisor_->snapshots(vm.insid, overlay)->front().with_memory);
  const auto restored = snapshots.restore(vm.insid, "snap-00000001", {});
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_THAT(restored->prompt, HasSubstr("with the guest's memory"));
  ASSERT_TRUE(goes_on(vm));

  ASSERT_TRUE(hypervisor_->destroy(vm.insid));
  EXPECT_EQ(list_snapshots(scratch)->size(), 1u);
  ASSERT_TRUE(make_scratch());
  ASSERT_TRUE(hypervisor_->define_and_start(vm));
  ASSERT_TRUE(goes_on(vm));
  EXPECT_FALSE(hypervisor_->snapshots(vm.insid, overlay)->front().with_memory);
  const auto again = snapshots.restore(vm.insid, "snap-00000001", {});
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_THAT(again->prompt, HasSubstr("switched off and on"));
  ASSERT_TRUE(snapshots.remove(vm.insid, "snap-00000001"));
  EXPECT_TRUE(hypervisor_->snapshots(vm.insid, overlay)->empty());
}

}  // namespace
}  // namespace educloud::nc
