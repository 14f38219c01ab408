#pragma once

#include "nc/hypervisor/hypervisor.hpp"

// Snapshots inside a qcow2 file that no VM has open, by qemu-img. What the file stands on is never opened.
// Errors: not_found (no such snapshot), exhausted, internal with qemu-img's words.
namespace educloud::nc {

/// Oldest first.
Result<std::vector<DiskSnapshot>> list_snapshots(const std::filesystem::path& file);
Result<> create_snapshot(const std::filesystem::path& file, const std::string& name);
/// The file holds what it held then; a memory that was kept is not used.
Result<> apply_snapshot(const std::filesystem::path& file, const std::string& name);
Result<> delete_snapshot(const std::filesystem::path& file, const std::string& name);

/// As QEMU and qemu-img list them. Shared with the VM's monitor.
std::vector<DiskSnapshot> snapshots_of(const nlohmann::json& image_info);

}  // namespace educloud::nc
