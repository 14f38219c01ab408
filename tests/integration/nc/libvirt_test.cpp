#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <future>

#include "common/sys/process.hpp"
#include "integration/nc/libvirt_guest.hpp"
#include "integration/nc/reading_guest.hpp"
#include "nc/app/nbd_proxy.hpp"
#include "nc/cache/nbd_export.hpp"
#include "nc/hypervisor/kvm_probe.hpp"
#include "nc/hypervisor/libvirt_hypervisor.hpp"
#include "support/fault.hpp"

namespace educloud::nc {
namespace {

TEST(KvmProbe, TheSectorRunsUnderTcg) {
  ASSERT_TRUE(OwnLibvirtd::is_possible()) << "run as root, with scripts/packages/run installed";
  const auto ran = probe_kvm("tcg", std::chrono::milliseconds{20'000});
  EXPECT_TRUE(ran) << ran.error().message;
}

TEST(KvmProbe, TheHypervisorSaysWhatTheProbeFound) {
  ASSERT_TRUE(OwnLibvirtd::is_possible()) << "run as root, with scripts/packages/run installed";
  const bool works = probe_kvm().has_value();
  auto hypervisor = make_libvirt_hypervisor({.uri = "test:///default", .accel = "auto"});
  ASSERT_TRUE(hypervisor->start([](const VmEvent&) {}));
  EXPECT_EQ(hypervisor->kind(), works ? "kvm" : "qemu");
  if (works) return;
  EXPECT_THAT(hypervisor->warnings(), ::testing::Contains(::testing::HasSubstr("KVM is not used")));
  auto demanded = make_libvirt_hypervisor({.uri = "test:///default", .accel = "kvm"});
  EXPECT_FALSE(demanded->start([](const VmEvent&) {}));
}

TEST(LibvirtTestDriver, AnswersWithoutGuestsOfOurs) {
  auto hypervisor = make_libvirt_hypervisor({.uri = "test:///default", .accel = "tcg"});
  ASSERT_TRUE(hypervisor->start([](const VmEvent&) {}));
  auto vms = hypervisor->list();
  ASSERT_TRUE(vms) << vms.error().message;
  EXPECT_TRUE(vms->empty());  // its domain "test" is not ours
  const auto unknown = *InstanceId::parse("VD0000dead");
  EXPECT_EQ(hypervisor->state(unknown).error().code, ErrorCode::not_found);
  EXPECT_EQ(hypervisor->shutdown(unknown).error().code, ErrorCode::not_found);
  EXPECT_EQ(hypervisor->screenshot(unknown).error().code, ErrorCode::not_found);
  EXPECT_TRUE(hypervisor->destroy(unknown));
  hypervisor->stop();
}

TEST(LibvirtTestDriver, AnUnreachableLibvirtIsSaidAndNotEmpty) {
  auto hypervisor = make_libvirt_hypervisor({.uri = "qemu+unix:///system?socket=/nowhere/libvirt-sock",
                                             .accel = "tcg",
                                             .first_connect = std::chrono::milliseconds{50}});
  ASSERT_TRUE(hypervisor->start([](const VmEvent&) {}));
  EXPECT_EQ(hypervisor->list().error().code, ErrorCode::unavailable);
  ASSERT_FALSE(hypervisor->warnings().empty());
  EXPECT_THAT(hypervisor->warnings()[0], ::testing::HasSubstr("/nowhere/libvirt-sock"));
}

TEST_F(LibvirtGuest, BootsShowsItselfAndEnds) {
  const auto vm = spec();
  auto started = hypervisor_->define_and_start(vm);
  ASSERT_TRUE(started) << started.error().message;
  EXPECT_TRUE(events_.wait(VmEvent::Kind::started, vm.insid.str()));
  EXPECT_EQ(*hypervisor_->state(vm.insid), VmState::running);
  EXPECT_TRUE(eventually([&] { return console(vm).find("up") != std::string::npos; })) << console(vm);
  auto picture = hypervisor_->screenshot(vm.insid);
  ASSERT_TRUE(picture) << picture.error().message;
  EXPECT_TRUE(picture->starts_with("\x89PNG"));
  auto vms = hypervisor_->list();
  ASSERT_TRUE(vms);
  ASSERT_EQ(vms->size(), 1u);
  EXPECT_EQ(vms->front().tid, vm.tid.str());
  EXPECT_EQ(vms->front().cmdid, vm.cmdid);
  EXPECT_EQ(vms->front().memory_mib, 32);
  EXPECT_GT(vms->front().resident_mib, 0);
  // A second start of the same task changes nothing; another task may not have the name.
  EXPECT_TRUE(hypervisor_->define_and_start(vm));
  auto other = vm;
  other.tid = *TaskId::parse("IMG00000002:IMG00000002:VD0000beef");
  EXPECT_EQ(hypervisor_->define_and_start(other).error().code, ErrorCode::conflict);
  EXPECT_TRUE(hypervisor_->destroy(vm.insid));
  EXPECT_TRUE(events_.wait(VmEvent::Kind::stopped, vm.insid.str()));
  EXPECT_EQ(hypervisor_->state(vm.insid).error().code, ErrorCode::not_found);
  EXPECT_TRUE(hypervisor_->destroy(vm.insid));
}

/// A disk in memory; a read of what has not arrived waits.
class ArrivingDisk : public NodeCache::Reader {
 public:
  std::uint64_t disk_bytes() const override { return disk_.size(); }
  bool is_complete() const override { return false; }
  Result<> read(std::uint64_t offset, std::span<char> out, std::stop_token stop) override {
    std::unique_lock lock(mutex_);
    if (!changed_.wait(lock, stop, [&] { return offset + out.size() <= arrived_; })) {
      return fail(ErrorCode::cancelled, "stopped");
    }
    disk_.copy(out.data(), out.size(), offset);
    return {};
  }
  void arrive(std::uint64_t bytes) {
    std::lock_guard lock(mutex_);
    arrived_ = bytes;
    changed_.notify_all();
  }

 private:
  const std::string disk_ = reading_guest_disk();
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::uint64_t arrived_ = 512 * 1024;
};

TEST_F(LibvirtGuest, ReadsOverASocketWhatStillArrivesAndOutlivesTheServer) {
  auto vm = spec();
  const auto fill = shared_->directory() / "fill.nbd", socket = shared_->directory() / "disk.nbd";
  const auto overlay = shared_->directory() / "lazy.qcow2";
  auto disk = std::make_shared<ArrivingDisk>();
  auto served = std::move(*NbdExport::serve(fill, disk));
  auto proxied = start_nbd_proxy(fill, socket, std::nullopt);
  ASSERT_TRUE(proxied) << proxied.error().message;
  EXPECT_TRUE(is_nbd_proxy_up(socket));
  auto made = sys::run_checked(
      {.argv = {"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b",
                "nbd+unix:///disk?socket=" + socket.string(), overlay, std::to_string(disk->disk_bytes())}});
  ASSERT_TRUE(made) << made.error().message;
  vm.disk = {{overlay, "qcow2"}, {socket, "raw", true}};
  auto started = hypervisor_->define_and_start(vm);
  ASSERT_TRUE(started) << started.error().message;
  const auto said = [&](std::size_t count) {
    return eventually([&] { return console(vm).size() >= count; });
  };
  ASSERT_TRUE(said(20)) << console(vm);
  served.reset();
  const auto before = console(vm).size();
  served = std::move(*NbdExport::serve(fill, disk));
  EXPECT_TRUE(said(before + 20)) << console(vm);
  disk->arrive(disk->disk_bytes());
  EXPECT_TRUE(said(before + 40)) << console(vm);
  EXPECT_EQ(console(vm).find('E'), std::string::npos) << console(vm);
  EXPECT_TRUE(hypervisor_->destroy(vm.insid));
  EXPECT_TRUE(eventually([&] { return !is_nbd_proxy_up(socket); })) << "it ends with its guest";
  ASSERT_TRUE(start_nbd_proxy(fill, socket, std::nullopt));
  end_nbd_proxy(socket);
  EXPECT_TRUE(eventually([&] { return !is_nbd_proxy_up(socket); })) << "its guest never came";
}

TEST_F(LibvirtGuest, AWebPortThatIsTakenIsAConflict) {
  const auto first = spec("VD0000aaa1");
  auto second = spec("VD0000aaa2");
  second.display_port += 1;
  const auto started = hypervisor_->define_and_start(first);
  ASSERT_TRUE(started) << started.error().message;
  auto refused = hypervisor_->define_and_start(second);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::conflict) << refused.error().message;
}

TEST_F(LibvirtGuest, AKilledQemuIsToldAsCrash) {
  const auto vm = spec();
  ASSERT_TRUE(hypervisor_->define_and_start(vm));
  const pid_t guest = shared_->guest_pid(vm.insid.str());
  ASSERT_GT(guest, 0);
  kill(guest, SIGKILL);
  educloud::test::injected("hypervisor");
  EXPECT_TRUE(events_.wait(VmEvent::Kind::crashed, vm.insid.str()));
}

TEST_F(LibvirtGuest, AQemuThatHangsHoldsUpNobodyAndCanBeEnded) {
  const auto vm = spec();
  ASSERT_TRUE(hypervisor_->define_and_start(vm));
  const pid_t qemu = shared_->guest_pid(vm.insid.str());
  ASSERT_GT(qemu, 0);
  ASSERT_EQ(kill(qemu, SIGSTOP), 0);
  const auto listed = [&] {
    auto list = std::async(std::launch::async, [&] { return hypervisor_->list(); });
    const bool in_time = list.wait_for(std::chrono::seconds{20}) == std::future_status::ready;
    if (!in_time) kill(qemu, SIGKILL);
    const auto vms = list.get();
    return in_time && vms && vms->size() == 1 && vms->front().resident_mib > 0;
  };
  EXPECT_TRUE(listed());
  EXPECT_EQ(hypervisor_->shutdown(vm.insid).error().code, ErrorCode::timeout);
  EXPECT_TRUE(listed()) << "while the button waits";
  EXPECT_EQ(*hypervisor_->state(vm.insid), VmState::running);
  EXPECT_TRUE(hypervisor_->destroy(vm.insid));
  EXPECT_EQ(hypervisor_->state(vm.insid).error().code, ErrorCode::not_found);
}

TEST_F(LibvirtGuest, GuestsOutliveLibvirtdAndAreAdopted) {
  const auto lives = spec("VD0000aaa1");
  auto dies = spec("VD0000aaa2");
  dies.display_port += 1;
  dies.web_port += 1;
  ASSERT_TRUE(hypervisor_->define_and_start(lives));
  ASSERT_TRUE(hypervisor_->define_and_start(dies));
  const pid_t victim = shared_->guest_pid(dies.insid.str());
  ASSERT_TRUE(events_.wait(VmEvent::Kind::resync, {}, 2));
  events_.forget();
  shared_->kill_hard();
  EXPECT_TRUE(eventually([&] { return !hypervisor_->list(); }));
  kill(victim, SIGKILL);
  educloud::test::injected("hypervisor", 2);
  ASSERT_TRUE(shared_->start());
  EXPECT_TRUE(events_.wait(VmEvent::Kind::resync, {}, 2));
  EXPECT_TRUE(eventually([&] {
    auto vms = hypervisor_->list();
    return vms && vms->size() == 1 && vms->front().insid == lives.insid &&
           vms->front().tid == lives.tid.str();
  }));
  // Events come again over the new connection.
  ASSERT_TRUE(hypervisor_->destroy(lives.insid));
  EXPECT_TRUE(events_.wait(VmEvent::Kind::stopped, lives.insid.str()));
}

TEST_F(LibvirtGuest, ANewProcessFindsTheGuests) {
  const auto vm = spec();
  ASSERT_TRUE(hypervisor_->define_and_start(vm));
  hypervisor_.reset();
  connect();
  auto vms = hypervisor_->list();
  ASSERT_TRUE(vms);
  ASSERT_EQ(vms->size(), 1u);
  EXPECT_EQ(vms->front().tid, vm.tid.str());
}

}  // namespace
}  // namespace educloud::nc
