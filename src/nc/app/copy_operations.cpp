// image/prepare and image/submit: the long ones.
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "nc/app/operations.hpp"

namespace educloud::nc {

using task::Event;
using task::Phase;
using task::State;

namespace {

constexpr task::TaskState kDownloading{Phase::preparing, State::downloading};
constexpr task::TaskState kCloning{Phase::preparing, State::cloning};
constexpr task::TaskState kPrepared{Phase::preparing, State::done};
constexpr task::TaskState kUploading{Phase::submitting, State::uploading};
constexpr task::TaskState kSubmitted{Phase::submitting, State::done};

// A submit is three pieces of work; these are where each ends, in percent of the whole.
constexpr int kFlattened = 40;
constexpr int kHashed = 50;

int percent_of(std::uint64_t done, std::uint64_t total) {
  return total == 0 ? 0 : static_cast<int>(static_cast<double>(done) * 100.0 / static_cast<double>(total));
}

std::string name_of(const msg::ImageVersion& version) {
  return version.imgid + " version " + std::to_string(version.version);
}

}  // namespace

Operations::Final Operations::prepare(const Call& call) {
  if (!call.command.source)
    return fail(ErrorCode::invalid_argument, "image/prepare without source", "source");
  const auto& source = *call.command.source;
  if (source.imgid != call.tid.source.str()) {
    return fail(ErrorCode::invalid_argument,
                "source " + source.imgid + " is not the one of task " + call.tid.str(), "source.imgid");
  }
  const auto size = static_cast<std::uint64_t>(source.size_bytes);
  if (!images_.base(source.imgid, source.version)) {
    progress(call, Event::downloading, kDownloading, 0, 0, size, "downloading " + name_of(source));
    if (auto ok = need_disk(size, "image " + name_of(source)); !ok) return fail(ok.error());
  }
  const auto on_copied = [&](std::uint64_t done, std::uint64_t total) {
    if (total == 0) total = size;
    progress(call, Event::downloading, kDownloading, percent_of(done, total), done, total,
             "downloading " + name_of(source));
  };
  if (auto ok = images_.fetch(source, call.command.source_grant, on_copied, call.stop); !ok)
    return fail(ok.error());
  if (base_of(call.tid) == Base::build_copy) {
    if (auto ok = clone_for_build(call, source); !ok) return fail(ok.error());
  }
  return final_report(call, Event::prepared, kPrepared, name_of(source) + " is on the node");
}

Result<> Operations::clone_for_build(const Call& call, const msg::ImageVersion& source) {
  const auto& layout = options_.layout;
  const auto target = layout.build(call.tid.target);
  auto record = read_record(layout, call.tid.instance);
  if (!record) return fail(record.error());
  std::error_code ignored;
  // A build that was stopped and is started again goes on with what it has.
  if (*record && std::filesystem::exists(target, ignored)) return {};
  auto base = images_.base(source.imgid, source.version);
  if (!base) return fail(base.error());
  const auto size = static_cast<std::uint64_t>(source.size_bytes);
  if (auto ok = need_disk(size, "the copy of " + name_of(source)); !ok) return ok;
  if (auto ok = sys::make_directories(layout.build_folder(call.tid.target)); !ok) return ok;
  const auto part = layout.build_folder(call.tid.target) / "machine.part";
  if (auto ok = remove_file(part); !ok) return ok;
  const auto on_copied = [&](std::uint64_t done, std::uint64_t total) {
    progress(call, Event::cloning, kCloning, percent_of(done, total), done, total,
             "cloning " + name_of(source));
  };
  on_copied(0, size);
  if (auto ok = images_.clone(base->file, part, on_copied, call.stop); !ok) return ok;
  std::error_code error;
  std::filesystem::rename(part, target, error);
  if (error) return fail(errno_error("rename " + part.string(), error.value()));
  if (auto ok = sys::sync_path(layout.build_folder(call.tid.target)); !ok) return ok;
  // Last: the record is what says that the copy is complete and of which version.
  return write_record(layout, call.tid.instance,
                      {call.tid.str(), source.imgid, source.version, base->format});
}

Operations::Final Operations::submit(const Call& call) {
  const auto& insid = call.tid.instance;
  if (!keeps_overlay(insid)) {
    return fail(ErrorCode::conflict,
                "desktop " + insid.str() + " keeps no changes; only build and modify are submitted");
  }
  if (call.command.target_imgid != call.tid.target.str() || call.command.target_version < 1) {
    return fail(ErrorCode::invalid_argument, "the target of the submit is not " + call.tid.target.str(),
                "target_imgid");
  }
  auto state = state_of(call);
  if (state) return fail(ErrorCode::conflict, "VM " + insid.str() + " still runs; stop it before submitting");
  if (state.error().code != ErrorCode::not_found) return fail(state.error());
  auto record = read_record(options_.layout, insid);
  if (!record) return fail(record.error());
  if (!*record)
    return fail(ErrorCode::not_found, "nothing was prepared for " + call.tid.str() + " on this node");
  progress(call, Event::uploading, kUploading, 0, 0, 0, "putting the image together");
  auto digest = flat_copy(call, **record);
  if (!digest) return fail(digest.error());
  Upload what{call.command.target_imgid, call.command.target_version,
              call.command.target_grant, options_.layout.submit(insid),
              call.command.cmdid,        *digest,
              (*record)->imgid,          (*record)->version};
  const auto on_copied = [&](std::uint64_t done, std::uint64_t total) {
    const int percent = kHashed + percent_of(done, total) * (100 - kHashed) / 100;
    progress(call, Event::uploading, kUploading, percent, done, total, "uploading");
  };
  auto receipt = images_.upload(what, on_copied, call.stop);
  if (!receipt) return fail(receipt.error());
  auto report =
      final_report(call, Event::submitted, kSubmitted,
                   "version " + std::to_string(what.version) + " of " + what.imgid + " is published");
  report.receipt = *receipt;
  if (auto ok = remove_tree(options_.layout.submit_folder(insid)); !ok) {
    obs::warn("submit.not_removed", {{"tid", call.tid.str()}, {"reason", ok.error().message}});
  }
  return report;
}

Result<std::string> Operations::flat_copy(const Call& call, const InstanceRecord& record) {
  const auto& layout = options_.layout;
  const auto& insid = call.tid.instance;
  const auto output = layout.submit(insid);
  std::error_code ignored;
  const auto kept = read_submit(layout, insid);
  // Made before a restart: the receiver may have half of exactly these bytes.
  if (kept && kept->cmdid == call.command.cmdid && std::filesystem::exists(output, ignored))
    return kept->digest;
  auto base = base_of_vm(call, record);
  if (!base) return fail(base.error());
  if (!std::filesystem::exists(layout.overlay(insid), ignored)) {
    if (base_of(call.tid) == Base::cached_version) {
      return fail(ErrorCode::conflict,
                  "nothing was changed in " + call.tid.str() + "; run it before submitting");
    }
    if (auto ok = images_.make_overlay(*base, layout.overlay(insid)); !ok) return fail(ok.error());
  }
  if (auto ok = remove_tree(layout.submit_folder(insid)); !ok) return fail(ok.error());
  const auto size = std::filesystem::file_size(base->file, ignored) +
                    std::filesystem::file_size(layout.overlay(insid), ignored);
  if (auto ok = need_disk(ignored ? 0 : size, "the flat copy of " + insid.str()); !ok)
    return fail(ok.error());
  if (auto ok = sys::make_directories(layout.submit_folder(insid)); !ok) return fail(ok.error());
  const auto on_percent = [&](int percent) {
    progress(call, Event::uploading, kUploading, percent * kFlattened / 100, 0, 0,
             "putting the image together");
  };
  auto flat = images_.flatten(layout.overlay(insid), *base, output, on_percent, call.stop);
  if (!flat) {
    if (auto ok = remove_tree(layout.submit_folder(insid)); !ok) return fail(ok.error());
    return fail(flat.error());
  }
  const auto on_hashed = [&](std::uint64_t done, std::uint64_t total) {
    const int percent = kFlattened + percent_of(done, total) * (kHashed - kFlattened) / 100;
    progress(call, Event::uploading, kUploading, percent, 0, 0, "checking the image");
  };
  auto digest = images_.digest(output, on_hashed, call.stop);
  if (!digest) return fail(digest.error());
  if (auto ok = write_submit(layout, insid, {call.command.cmdid, *digest}); !ok) return fail(ok.error());
  return digest;
}

}  // namespace educloud::nc
