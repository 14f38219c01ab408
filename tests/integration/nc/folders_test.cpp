#include "nc/app/folders.hpp"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/sys/file.hpp"
#include "common/sys/process.hpp"
#include "integration/nc/libvirt_guest.hpp"
#include "support/paths.hpp"

namespace educloud::nc {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr std::chrono::seconds kBoot{180};  ///< of a whole Linux under TCG on a busy machine

/// A real guest and folders of this host's own.
class GuestFolders : public LibvirtGuest {
 protected:
  void SetUp() override {
    LibvirtGuest::SetUp();
    if (HasFatalFailure()) return;
    for (const char* share : {"software", "pub-data", "prv-data"})
      fs::create_directories(layout().space() / share);
    folders_ = std::make_unique<Folders>(options(), *hypervisor_);
    folders_->start();
  }
  Folders::Options options() {
    Folders::Options made;
    made.layout = layout();
    made.local = layout().space();
    made.patience = std::chrono::milliseconds{500};
    return made;
  }
  Layout layout() const { return Layout(shared_->directory() / "storage"); }

  VmSpec desktop(FolderProtocol protocol) {
    const auto image = shared_->directory() / "sample.qcow2";
    if (!fs::exists(image)) {
      sys::ProcessOptions build{
          .argv = {test::source_dir() / "scripts/build-sample-image", "--out", image.string()}};
      build.timeout = std::chrono::minutes{5};
      const auto built = sys::run_checked(build);
      EXPECT_TRUE(built) << built.error().message;
    }
    auto made = spec(protocol == FolderProtocol::smb ? "VD0000b0b0" : "VD0000f0f0");
    const auto overlay = made.console_log.parent_path() / "overlay.qcow2";
    fs::remove(overlay);
    const auto on_top = sys::run_checked({.argv = {"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2",
                                                   "-b", image.string(), overlay.string()}});
    EXPECT_TRUE(on_top) << on_top.error().message;
    made.memory_mib = 128;
    made.disk = {{overlay, "qcow2"}, {image, "qcow2"}};
    made.folder_protocol = protocol;
    made.folders = *parse_folders({{"d", "space/prv-data/ann", 0}, {"e", "space/pub-data", 0}});
    return made;
  }
  /// The answer of the guest's page, once it gives one.
  std::string page(const std::string& path) {
    std::string body;
    EXPECT_TRUE(eventually(
        [&] {
          auto asked = sys::run(
              {.argv = {"curl", "-sS", "-m", "10", "http://127.0.0.1:" + std::to_string(web_port_) + path}});
          if (!asked || asked->exit_code != 0) return false;
          body = asked->out;
          return true;
        },
        kBoot))
        << path;
    return body;
  }
  void wait_for_drives(const std::string& kind) {
    std::string drives;
    EXPECT_TRUE(eventually(
        [&] {
          drives = page("/cgi-bin/disks");
          return drives.find("d " + kind) != drives.npos && drives.find("e " + kind) != drives.npos;
        },
        kBoot))
        << drives;
  }
  void check_reading_and_writing(const std::string& kind) {
    wait_for_drives(kind);
    const auto own = layout().space() / "prv-data/ann", all = layout().space() / "pub-data";
    EXPECT_EQ(page("/cgi-bin/disk-write?name=d&file=mine&text=secret"), "secret\n");
    EXPECT_EQ(*sys::read_file(own / "mine"), "secret\n");
    std::ofstream(all / "from-others") << "news";
    EXPECT_EQ(page("/cgi-bin/disk?name=e&file=from-others"), "news\n");
    EXPECT_THAT(page("/cgi-bin/disk?name=d"), ::testing::Not(HasSubstr("bob")));
  }

  std::unique_ptr<Folders> folders_;
};

TEST_F(GuestFolders, OverVirtiofs) {
  auto vm = desktop(FolderProtocol::virtiofs);
  fs::create_directories(layout().space() / "prv-data/bob");
  const auto note = folders_->prepare(vm, {});
  ASSERT_TRUE(note) << note.error().message;
  EXPECT_EQ(*note, "");
  const auto started = hypervisor_->define_and_start(vm);
  ASSERT_TRUE(started) << started.error().message;
  check_reading_and_writing("virtiofs");
}

TEST_F(GuestFolders, OverSmb) {
  auto vm = desktop(FolderProtocol::smb);
  vm.folders[1].read_only = true;
  // What a guest that had escaped left in a folder that was its QEMU's.
  const auto smb = layout().smb(vm.insid), bait = layout().space() / "bait";
  fs::create_directories(smb);
  fs::create_directory(bait);
  fs::create_directory_symlink(bait, smb / "state");
  const auto note = folders_->prepare(vm, {});
  ASSERT_TRUE(note) << note.error().message;
  EXPECT_EQ(fs::symlink_status(smb / "state").type(), fs::file_type::directory);
  struct stat given {};
  ASSERT_EQ(::stat(bait.c_str(), &given), 0);
  EXPECT_EQ(given.st_uid, ::geteuid()) << "no link was followed";
  fs::create_directory_symlink("/etc", layout().space() / "prv-data/ann/out");
  fs::create_symlink("/etc/passwd", layout().space() / "prv-data/ann/passwd");
  const auto started = hypervisor_->define_and_start(vm);
  ASSERT_TRUE(started) << started.error().message;
  check_reading_and_writing("smb");
  EXPECT_THAT(page("/cgi-bin/disk-write?name=e&file=mine&text=no"), HasSubstr("Permission denied"));
  EXPECT_THAT(page("/cgi-bin/disk?name=d&file=passwd"), ::testing::Not(HasSubstr("root:")));
  EXPECT_FALSE(fs::exists(layout().space() / "pub-data/mine"));
}

TEST_F(GuestFolders, AUsersFolderIsMadeAndNoLinkFollowed) {
  auto vm = desktop(FolderProtocol::virtiofs);
  vm.folders = *parse_folders({{"d", "space/prv-data/carl", 0}});
  ASSERT_TRUE(folders_->prepare(vm, {}));
  EXPECT_TRUE(fs::is_directory(layout().space() / "prv-data/carl"));
  EXPECT_EQ(vm.folders[0].source, layout().space() / "prv-data/carl");
  fs::create_directory_symlink("/etc", layout().space() / "prv-data/dora");
  vm.folders = *parse_folders({{"d", "space/prv-data/dora", 0}});
  const auto refused = folders_->prepare(vm, {});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("symbolic link"));
}

TEST_F(GuestFolders, WithoutSoftwareItStartsAndWithoutDataNot) {
  auto vm = desktop(FolderProtocol::smb);
  fs::remove_all(layout().space() / "software");
  vm.folders = *parse_folders({{"e", "space/software", 1}});
  const auto note = folders_->prepare(vm, {});
  ASSERT_TRUE(note) << note.error().message;
  EXPECT_THAT(*note, HasSubstr("without drive e (space/software)"));
  EXPECT_TRUE(vm.folders.empty());
  EXPECT_TRUE(vm.smb.empty());
  // A way to walrus is set up, but nothing is mounted: what lies there instead is not the folder.
  auto mounted = options();
  mounted.local.clear();
  mounted.server.host = "127.0.0.1";
  Folders cut(mounted, *hypervisor_);
  vm.folders = *parse_folders({{"d", "space/pub-data", 0}});
  const auto refused = cut.prepare(vm, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("space/pub-data does not answer: it is not mounted"));
  mounted.server.host.clear();
  Folders none(mounted, *hypervisor_);
  EXPECT_THAT(*none.prepare(vm, {}), HasSubstr("without its shared folders"));
  EXPECT_TRUE(vm.folders.empty());
  EXPECT_EQ(none.warnings().size(), 1u);
}

}  // namespace
}  // namespace educloud::nc
