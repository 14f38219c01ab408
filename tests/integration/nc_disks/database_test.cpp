#include <gmock/gmock.h>
#include <signal.h>

#include <future>

#include "cc/disks/disk_submit.hpp"
#include "common/http/client.hpp"
#include "common/sys/process.hpp"
#include "integration/cc_disks/disk_host.hpp"
#include "integration/nc/libvirt_guest.hpp"
#include "nc/app/cc_disks.hpp"
#include "support/paths.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::chrono::seconds kBoot{180};  ///< of a whole Linux under TCG on a busy machine
constexpr const char* kDatabase = "IMG000000db";
constexpr const char* kServer = "VS0000beef";

/// A real Linux whose d: a real tgtd serves.
class DatabaseGuest : public LibvirtGuest {
 protected:
  void SetUp() override {
    LibvirtGuest::SetUp();
    publish();
    host_.emplace(dir_.path(), walrus_, port_);
    const auto image = shared_->directory() / "sample.qcow2";
    if (std::filesystem::exists(image)) return;
    sys::ProcessOptions build{
        .argv = {test::source_dir() / "scripts/build-sample-image", "--out", image.string()}};
    build.timeout = std::chrono::minutes{5};
    const auto built = sys::run_checked(build);
    ASSERT_TRUE(built) << built.error().message;
  }

  /// An empty file system, as walrus makes it for a server's image.
  void publish() {
    const auto file = dir_ / "blank.raw";
    std::ofstream(file).close();
    std::filesystem::resize_file(file, kDiskBytes);
    const auto made = sys::run_checked({.argv = {"mke2fs", "-q", "-t", "ext4", "-L", "database", file}});
    ASSERT_TRUE(made) << made.error().message;
    auto receipt =
        cc::submit_disk(file, walrus_.remote(kDatabase, 1, "PUT"),
                        {.manifest = {}, .parent = {}, .if_current = {}, .cmdid = new_command_id().str()},
                        [](auto, auto) {}, {});
    ASSERT_TRUE(receipt) << receipt.error().message;
    receipt_ = *transfer::verify_receipt(test::kDataKey, *receipt);
  }

  CcDisks::Leave leave(std::int64_t epoch) const {
    const auto path = "/disks/" + std::string(kServer) + "/" + std::to_string(epoch);
    return {*InstanceId::parse(kServer), epoch, test::grant_for("nc1", "PUT", path)};
  }
  std::unique_ptr<CcDisks> cc() const { return make_cc_disks({.cc = host_->url()}); }
  Result<CcDisks::Opened> open(std::int64_t epoch, const std::string& mode = "iscsi",
                               bool writes = false) const {
    CcDisks::Opening request;
    request.leave = leave(epoch);
    request.mode = mode;
    request.writes = writes;
    request.source = {kDatabase, 1, receipt_.digest, 0, static_cast<std::int64_t>(kDiskBytes), "raw"};
    request.source_grant = test::grant_for("nc1", "GET", transfer::version_path(kDatabase, 1));
    return cc()->open(request, [](auto, auto) {}, {});
  }

  Result<> qcow2(const std::filesystem::path& base, const std::string& format,
                 const std::filesystem::path& file) const {
    std::filesystem::remove(file);
    auto made = sys::run_checked({.argv = {"qemu-img", "create", "-q", "-f", "qcow2", "-F", format, "-b",
                                           base.string(), file.string()}});
    return made ? Result<>{} : fail(made.error());
  }

  /// c:, the database disk as d: and a scratch disk as e:.
  Result<VmSpec> server(std::int64_t epoch, const std::string& mode = "iscsi") {
    auto opened = open(epoch, mode);
    if (!opened) return fail(opened.error());
    secret_ = opened->secret;
    auto made = spec(kServer);
    const auto image = shared_->directory() / "sample.qcow2";
    const auto folder = made.disk.front().file.parent_path();
    const auto empty = folder / "empty.raw", scratch = folder / "data.qcow2";
    std::ofstream(empty).close();
    std::filesystem::resize_file(empty, kDiskBytes);
    if (auto ok = qcow2(image, "qcow2", folder / "overlay.qcow2"); !ok) return fail(ok.error());
    if (auto ok = qcow2(empty, "raw", scratch); !ok) return fail(ok.error());
    made.memory_mib = 128;
    made.disk = {{folder / "overlay.qcow2", "qcow2"}, {image, "qcow2"}};
    made.extra = {{.kind = ExtraDisk::Kind::database, .iscsi = opened->disk},
                  {.kind = ExtraDisk::Kind::data, .layers = {{scratch, "qcow2"}, {empty, "raw"}}}};
    auto secret =
        opened->copy ? fetch(epoch, *opened->copy) : hypervisor_->set_disk_secret(made.insid, opened->secret);
    if (opened->copy) made.extra[0] = {.kind = ExtraDisk::Kind::database, .layers = {{held_.file, "raw"}}};
    if (opened->nbd) {
      made.extra[0] = {.kind = ExtraDisk::Kind::database, .layers = {{socket(), "raw", true}}};
      secret = start_nbd_disk(*opened->nbd, opened->secret, dir_ / "keys", socket(), std::nullopt);
    }
    if (!secret) return fail(secret.error());
    if (auto ok = hypervisor_->define_and_start(made); !ok) return fail(ok.error());
    return made;
  }
  /// Here, and noted there as what counts.
  Result<> fetch(std::int64_t epoch, const CcDisks::Copy& copy) {
    held_ = {leave(epoch), copy.name, dir_ / "local.raw"};
    if (auto ok = cc()->fetch(held_, copy.data_bytes, [](auto, auto) {}, {}); !ok) return ok;
    auto again = open(epoch, "copy", true);
    return again ? Result<>{} : fail(again.error());
  }
  std::filesystem::path socket() const { return dir_ / "database.nbd"; }
  bool is_ready(const VmSpec& vm) {
    return eventually([&] { return console(vm).find("sample guest ready") != std::string::npos; }, kBoot);
  }

  /// The guest's web server on drives (scripts/sample-image/cgi-disk).
  std::string get(const std::string& what, std::chrono::seconds patience = std::chrono::seconds{60}) const {
    http::Client client(*http::Url::parse("http://127.0.0.1:" + std::to_string(web_port_)),
                        {.connect_timeout = patience, .io_timeout = patience});
    http::ClientRequest request;
    request.target = "/cgi-bin/" + what;
    auto answer = client.send(request);
    if (!answer) return "error: " + answer.error().message;
    return std::to_string(answer->status) + " " + answer->body;
  }

  static constexpr std::uint64_t kDiskBytes = 64 << 20;
  const testing::TempDir dir_;
  test::RealWalrus walrus_;
  transfer::Receipt receipt_;
  const int port_ = test::free_port();
  std::optional<test::DiskHost> host_;
  std::string secret_;
  CcDisks::Held held_{leave(0), {}, {}};
};

TEST_F(DatabaseGuest, DrivesHaveTheirOrderAndDOutlivesTheVm) {
  auto vm = server(1);
  ASSERT_TRUE(vm) << vm.error().message;
  ASSERT_TRUE(is_ready(*vm)) << console(*vm);
  const auto drives = get("disks");
  EXPECT_THAT(drives, ::testing::ContainsRegex("d device [0-9]+ vdb\ne device [0-9]+ vdc")) << console(*vm);
  EXPECT_THAT(get("disk-write?name=d&file=row&text=kept"), HasSubstr("200 kept"));
  EXPECT_THAT(get("disk-write?name=e&file=row&text=lost"), HasSubstr("200 lost"));

  const auto limited = hypervisor_->set_limits(vm->insid, {.disk_iops = 2000, .disk_mib_s = 50});
  EXPECT_TRUE(limited) << limited.error().message;

  // The secret is nowhere where somebody could read it.
  const auto xml = sys::run_checked(
      {.argv = {"virsh", "-c", shared_->uri(), "dumpxml", "--security-info", vm->insid.str()}});
  ASSERT_TRUE(xml) << xml.error().message;
  EXPECT_THAT(*xml, HasSubstr("cache='writethrough'"));
  EXPECT_THAT(*xml, Not(HasSubstr(secret_)));
  std::ifstream argv("/proc/" + std::to_string(shared_->guest_pid(kServer)) + "/cmdline", std::ios::binary);
  const std::string line{std::istreambuf_iterator<char>(argv), {}};
  EXPECT_THAT(line, HasSubstr("iqn.2026-11.educloud:VS0000beef"));
  EXPECT_THAT(line, Not(HasSubstr(secret_)));
  const auto value =
      sys::run({.argv = {"virsh", "-c", shared_->uri(), "secret-get-value", secret_uuid(vm->insid)}});
  ASSERT_TRUE(value);
  EXPECT_NE(value->exit_code, 0) << "libvirt shows it to nobody";

  // Killed, not shut down: what the guest was told is written is there for the next epoch.
  kill(shared_->guest_pid(kServer), SIGKILL);
  ASSERT_TRUE(events_.wait(VmEvent::Kind::crashed, kServer));
  ASSERT_TRUE(cc()->close(leave(1), {}));
  const auto first_secret = secret_;
  vm = server(2);
  ASSERT_TRUE(vm) << vm.error().message;
  EXPECT_NE(secret_, first_secret);
  ASSERT_TRUE(is_ready(*vm)) << console(*vm);
  EXPECT_THAT(get("disk?name=d&file=row"), HasSubstr("200 kept"));
  EXPECT_THAT(get("disk?name=e&file=row"), HasSubstr("404")) << "a scratch disk is new each time";
  EXPECT_TRUE(hypervisor_->destroy(vm->insid));
  EXPECT_TRUE(hypervisor_->drop_disk_secret(vm->insid));
  EXPECT_TRUE(hypervisor_->drop_disk_secret(vm->insid)) << "again";
  ASSERT_TRUE(cc()->close(leave(2), {}));
  EXPECT_TRUE(cc()->remove(leave(2), {}));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "space/database/instances/VS0000beef"));
}

TEST_F(DatabaseGuest, ASessionOutlivesARestartOfTheCcAndACut) {
  auto vm = server(1);
  ASSERT_TRUE(vm) << vm.error().message;
  ASSERT_TRUE(is_ready(*vm)) << console(*vm);
  ASSERT_THAT(get("disk-write?name=d&file=before&text=one"), HasSubstr("200 one"));
  host_.reset();  // its tgtd goes with it
  auto during =
      std::async(std::launch::async, [&] { return get("disk-write?name=d&file=during&text=two", kBoot); });
  EXPECT_EQ(during.wait_for(std::chrono::seconds{6}), std::future_status::timeout) << "the guest waits";
  EXPECT_EQ(*hypervisor_->state(vm->insid), VmState::running);
  host_.emplace(dir_.path(), walrus_, port_);
  EXPECT_THAT(during.get(), HasSubstr("200 two"));
  EXPECT_THAT(get("disk?name=d&file=before"), HasSubstr("200 one"));
  EXPECT_THAT(get("disk-write?name=d&file=after&text=three"), HasSubstr("200 three"));
  EXPECT_THAT(console(*vm), Not(HasSubstr("I/O error")));

  const auto daemons = sys::run({.argv = {"pgrep", "-P", std::to_string(getpid()), "tgtd"}});
  ASSERT_TRUE(daemons);
  const auto tgtd = std::atoi(daemons->out.c_str());
  ASSERT_GT(tgtd, 0);
  ASSERT_EQ(kill(tgtd, SIGSTOP), 0);  // as a link that is cut: nothing answers
  during = std::async(std::launch::async, [&] { return get("disk-write?name=d&file=cut&text=four", kBoot); });
  EXPECT_EQ(during.wait_for(std::chrono::seconds{5}), std::future_status::timeout);
  ASSERT_EQ(kill(tgtd, SIGCONT), 0);
  EXPECT_THAT(during.get(), HasSubstr("200 four"));
  EXPECT_THAT(console(*vm), Not(HasSubstr("I/O error")));
  EXPECT_TRUE(hypervisor_->destroy(vm->insid));

  // What it wrote becomes a version.
  ASSERT_TRUE(cc()->close(leave(1), {}));
  auto receipt = cc()->submit({.leave = leave(1),
                               .imgid = kDatabase,
                               .version = 2,
                               .grant = test::grant_for("nc1", "PUT", transfer::version_path(kDatabase, 2)),
                               .parent = transfer::make_parent(kDatabase, 1),
                               .cmdid = new_command_id().str()},
                              [](auto, auto) {}, {});
  ASSERT_TRUE(receipt) << receipt.error().message;
  const auto published = transfer::verify_receipt(test::kDataKey, *receipt);
  ASSERT_TRUE(published);
  EXPECT_EQ(published->version, 2);
  EXPECT_NE(published->digest, receipt_.digest);
}

TEST_F(DatabaseGuest, OverNbdWithTlsItIsTheSameDisk) {
  auto vm = server(1, "nbd");
  ASSERT_TRUE(vm) << vm.error().message;
  ASSERT_TRUE(is_ready(*vm)) << console(*vm);
  EXPECT_THAT(get("disks"), ::testing::ContainsRegex("d device [0-9]+ vdb\ne device [0-9]+ vdc"));
  EXPECT_THAT(get("disk-write?name=d&file=row&text=secure"), HasSubstr("200 secure"));
  const auto argv = sys::run({.argv = {"pgrep", "-af", "qemu-nbd"}});
  ASSERT_TRUE(argv);
  EXPECT_THAT(argv->out, HasSubstr("file.export=VS0000beef"));
  EXPECT_THAT(argv->out, Not(HasSubstr(secret_)));

  host_.reset();
  auto during =
      std::async(std::launch::async, [&] { return get("disk-write?name=d&file=during&text=two", kBoot); });
  EXPECT_EQ(during.wait_for(std::chrono::seconds{6}), std::future_status::timeout) << "the guest waits";
  host_.emplace(dir_.path(), walrus_, port_);
  EXPECT_THAT(during.get(), HasSubstr("200 two"));
  EXPECT_THAT(console(*vm), Not(HasSubstr("I/O error")));
  EXPECT_TRUE(hypervisor_->destroy(vm->insid));
  EXPECT_TRUE(is_nbd_proxy_up(socket())) << "a restored snapshot starts the guest again";
  end_nbd_proxy(socket());
  ASSERT_TRUE(cc()->close(leave(1), {}));

  vm = server(2);  // the administrator chose iSCSI again
  ASSERT_TRUE(vm) << vm.error().message;
  ASSERT_TRUE(is_ready(*vm)) << console(*vm);
  EXPECT_THAT(get("disk?name=d&file=row"), HasSubstr("200 secure"));
  EXPECT_TRUE(hypervisor_->destroy(vm->insid));
  EXPECT_TRUE(hypervisor_->drop_disk_secret(vm->insid));
}

TEST_F(DatabaseGuest, ACopyNeedsNoCcWhileItsGuestRuns) {
  auto vm = server(1, "copy");
  ASSERT_TRUE(vm) << vm.error().message;
  host_.reset();
  ASSERT_TRUE(is_ready(*vm)) << console(*vm);
  EXPECT_THAT(get("disks"), ::testing::ContainsRegex("d device [0-9]+ vdb\ne device [0-9]+ vdc"));
  EXPECT_THAT(get("disk-write?name=d&file=row&text=local"), HasSubstr("200 local"));
  const auto xml = sys::run_checked({.argv = {"virsh", "-c", shared_->uri(), "dumpxml", kServer}});
  ASSERT_TRUE(xml);
  EXPECT_THAT(*xml, HasSubstr("cache='writethrough'"));
  // Killed, not shut down: what the guest was told is written comes back.
  kill(shared_->guest_pid(kServer), SIGKILL);
  ASSERT_TRUE(events_.wait(VmEvent::Kind::crashed, kServer));
  host_.emplace(dir_.path(), walrus_, port_);
  auto given = cc()->give_back(held_, "00000000000000ab", [](auto, auto) {}, {});
  ASSERT_TRUE(given) << given.error().message;
  ASSERT_TRUE(cc()->close(leave(1), {}));

  vm = server(2);  // by iSCSI
  ASSERT_TRUE(vm) << vm.error().message;
  ASSERT_TRUE(is_ready(*vm)) << console(*vm);
  EXPECT_THAT(get("disk?name=d&file=row"), HasSubstr("200 local"));
  EXPECT_TRUE(hypervisor_->destroy(vm->insid));
  EXPECT_TRUE(hypervisor_->drop_disk_secret(vm->insid));
}

TEST_F(DatabaseGuest, AClosedOrForeignDiskDoesNotStartAVm) {
  auto opened = open(1);
  ASSERT_TRUE(opened) << opened.error().message;
  auto made = spec(kServer);
  made.extra = {{.kind = ExtraDisk::Kind::database, .iscsi = opened->disk}};
  ASSERT_TRUE(hypervisor_->set_disk_secret(made.insid, "not-the-secret1"));
  EXPECT_FALSE(hypervisor_->define_and_start(made));
  ASSERT_TRUE(cc()->close(leave(1), {}));
  ASSERT_TRUE(hypervisor_->set_disk_secret(made.insid, opened->secret));
  EXPECT_FALSE(hypervisor_->define_and_start(made));
  EXPECT_TRUE(hypervisor_->drop_disk_secret(made.insid));
  // A node with an older epoch is told so at once.
  ASSERT_TRUE(open(3));
  auto late = open(2);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::conflict) << late.error().message;
}

TEST_F(DatabaseGuest, ACcThatIsAwayIsSaidInTime) {
  auto disks = make_cc_disks({.cc = host_->url(),
                              .patience = std::chrono::milliseconds{700},
                              .close_patience = std::chrono::milliseconds{300}});
  host_.reset();
  auto closed = disks->close(leave(1), {});
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().code, ErrorCode::unavailable);
  EXPECT_THAT(closed.error().message, HasSubstr("check educloud-cc"));
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(disks->remove(leave(1), stop.get_token()).error().code, ErrorCode::cancelled);
}

}  // namespace
}  // namespace educloud::nc
