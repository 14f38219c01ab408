#include "support/power_cut.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <set>

#include "support/temp_dir.hpp"

namespace educloud::testing {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kSector = 512;

/// What becomes of that which is not synced.
enum Fate { kNothing, kAll, kSomeWrites, kSomeSectors, kTornBeginning, kFates };

bool changes_names(DiskOp::Kind kind) {
  return kind == DiskOp::Kind::add_name || kind == DiskOp::Kind::drop_name || kind == DiskOp::Kind::rename;
}

void put(std::string& text, std::uint64_t at, std::string_view data) {
  if (text.size() < at + data.size()) text.resize(at + data.size(), '\0');
  std::copy(data.begin(), data.end(), text.begin() + static_cast<std::ptrdiff_t>(at));
}

void apply(std::string& text, const DiskOp& op) {
  switch (op.kind) {
    case DiskOp::Kind::write: put(text, op.at, op.data); return;
    case DiskOp::Kind::cut: text.resize(op.at, '\0'); return;
    case DiskOp::Kind::zero:
      if (op.at < text.size()) put(text, op.at, std::string(std::min(op.size, text.size() - op.at), '\0'));
      return;
    case DiskOp::Kind::sync:
    case DiskOp::Kind::add_name:
    case DiskOp::Kind::drop_name:
    case DiskOp::Kind::rename: return;
  }
}

/// Each sector of a write, or the first ones, if `keep` says so.
void apply_torn(std::string& text, const DiskOp& op, const std::function<bool()>& keep) {
  if (op.kind != DiskOp::Kind::write) {
    if (keep()) apply(text, op);
    return;
  }
  for (std::uint64_t at = op.at; at < op.at + op.data.size();) {
    const auto end = std::min(at / kSector * kSector + kSector, op.at + op.data.size());
    if (keep()) put(text, at, std::string_view(op.data).substr(at - op.at, end - at));
    at = end;
  }
}

void write_file(const fs::path& path, std::string_view text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  while (fd >= 0 && !text.empty()) {
    const auto done = ::write(fd, text.data(), text.size());
    if (done <= 0) std::abort();
    text.remove_prefix(static_cast<std::size_t>(done));
  }
  if (fd < 0) std::abort();
  ::close(fd);
}

}  // namespace

PowerCut::PowerCut(const Recording& recording, NameOrder order) : recording_(recording), order_(order) {
  for (const auto& [number, text] : recording.before.files) files_[number].synced = text;
  folders_ = recording.before.folders;
}

void PowerCut::rename(Folders& folders, const DiskOp& op) const {
  auto& from = folders[op.folder];
  const auto found = from.find(op.name);
  // Lost was what made the name.
  if (found == from.end() || found->second != op.file) return;
  from.erase(found);
  if (op.to_folder >= 0) folders[op.to_folder][op.to_name] = op.file;
}

void PowerCut::sync(int number) {
  if (folders_.contains(number)) return sync_names(number);
  auto& file = files_[number];
  for (const auto index : file.pending) apply(file.synced, recording_.ops[index]);
  file.pending.clear();
}

void PowerCut::sync_names(int folder) {
  const auto touches = [&](std::size_t index) {
    const auto& op = recording_.ops[index];
    return op.folder == folder || (op.kind == DiskOp::Kind::rename && op.to_folder == folder);
  };
  std::vector<std::size_t> rest;
  std::size_t left =
      static_cast<std::size_t>(std::count_if(pending_names_.begin(), pending_names_.end(), touches));
  for (const auto index : pending_names_) {
    const bool mine = touches(index);
    const bool older = order_ == NameOrder::journalled && left > 0;
    left -= mine ? 1 : 0;
    if (!mine && !older) {
      rest.push_back(index);
      continue;
    }
    const auto& op = recording_.ops[index];
    if (op.kind == DiskOp::Kind::add_name) folders_[op.folder][op.name] = op.file;
    if (op.kind == DiskOp::Kind::drop_name) folders_[op.folder].erase(op.name);
    if (op.kind == DiskOp::Kind::rename) rename(folders_, op);
  }
  pending_names_ = std::move(rest);
}

void PowerCut::advance(std::size_t position) {
  for (; position_ < position; ++position_) {
    const auto& op = recording_.ops.at(position_);
    if (changes_names(op.kind)) {
      pending_names_.push_back(position_);
    } else if (op.kind == DiskOp::Kind::sync) {
      sync(op.file);
    } else {
      files_[op.file].pending.push_back(position_);
    }
  }
}

std::string PowerCut::content(int number, std::mt19937_64& random, int fate) const {
  const auto found = files_.find(number);
  if (found == files_.end()) return {};
  std::string text = found->second.synced;
  const auto& pending = found->second.pending;
  const auto coin = [&] { return random() % 2 == 0; };
  const std::size_t whole = fate == kTornBeginning ? random() % (pending.size() + 1) : 0;
  for (std::size_t i = 0; i < pending.size(); ++i) {
    const auto& op = recording_.ops[pending[i]];
    if (fate == kAll || (fate == kSomeWrites && coin()) || (fate == kTornBeginning && i < whole)) {
      apply(text, op);
    } else if (fate == kSomeSectors || (fate == kTornBeginning && i == whole)) {
      apply_torn(text, op, coin);
    }
  }
  return text;
}

PowerCut::Folders PowerCut::names(std::mt19937_64& random, int fate) const {
  auto folders = folders_;
  std::size_t keep = pending_names_.size();
  if (fate == kNothing) keep = 0;
  if (fate > kAll && order_ == NameOrder::journalled) keep = random() % (keep + 1);
  for (std::size_t i = 0; i < keep; ++i) {
    if (fate > kAll && order_ == NameOrder::any && random() % 2 == 0) continue;
    const auto& op = recording_.ops[pending_names_[i]];
    if (op.kind == DiskOp::Kind::add_name) folders[op.folder][op.name] = op.file;
    if (op.kind == DiskOp::Kind::drop_name) folders[op.folder].erase(op.name);
    if (op.kind == DiskOp::Kind::rename) rename(folders, op);
  }
  return folders;
}

void PowerCut::leave(std::uint64_t seed, const fs::path& into) const {
  std::mt19937_64 random(seed);
  const auto fate = [&] { return static_cast<int>(random() % kFates); };
  const auto folders = names(random, fate());
  std::map<int, fs::path> made;
  const std::function<void(int, const fs::path&)> make = [&](int folder, const fs::path& path) {
    fs::create_directory(path);
    for (const auto& [name, number] : folders.at(folder)) {
      const auto at = path / name;
      if (folders.contains(number)) {
        make(number, at);
      } else if (const auto twin = made.find(number); twin != made.end()) {
        fs::create_hard_link(twin->second, at);
      } else {
        // Memory shared between processes that are no more: the file may hold anything.
        const bool shared = name.ends_with("-shm");
        write_file(
            at, shared ? std::string(32768, static_cast<char>(random())) : content(number, random, fate()));
        made[number] = at;
      }
    }
  };
  make(0, into);
}

std::string PowerCut::difference(const fs::path& root) const {
  std::mt19937_64 unused(0);
  const auto folders = names(unused, kAll);
  std::function<std::string(int, const fs::path&)> compare = [&](int folder,
                                                                 const fs::path& path) -> std::string {
    std::set<std::string> there;
    for (const auto& entry : fs::directory_iterator(path)) there.insert(entry.path().filename().string());
    for (const auto& [name, number] : folders.at(folder)) {
      const auto at = path / name;
      if (there.erase(name) == 0) return at.string() + " is not there";
      if (folders.contains(number)) {
        if (auto found = compare(number, at); !found.empty()) return found;
      } else if (!name.ends_with("-shm")) {
        const auto real = slurp(at), seen = content(number, unused, kAll);
        const auto same =
            std::mismatch(real.begin(), real.end(), seen.begin(), seen.end()).first - real.begin();
        if (real != seen) {
          return at.string() + " differs from byte " + std::to_string(same) + ": it has " +
                 std::to_string(real.size()) + ", recorded were " + std::to_string(seen.size());
        }
      }
    }
    return there.empty() ? "" : (path / *there.begin()).string() + " was not recorded";
  };
  return compare(0, root);
}

}  // namespace educloud::testing
