// VM types and OS types.
#include "clc/app/cloud_impl.hpp"

namespace educloud::clc {
namespace {

Result<> check_vmtype(const VmType& type) {
  if (auto ok = check_type_name(type.name); !ok) return ok;
  if (type.memory_mib < 64 || type.memory_mib > 4'000'000)
    return fail(ErrorCode::invalid_argument, "'memory_mib' must be 64 to 4000000", "memory_mib");
  if (type.cpus < 1 || type.cpus > 256)
    return fail(ErrorCode::invalid_argument, "'cpus' must be 1 to 256", "cpus");
  return check_limits(type.limits);
}

Result<> check_choice(const std::string& value, std::string_view key,
                      std::initializer_list<std::string_view> choices) {
  std::string all;
  for (const auto one : choices) {
    if (value == one) return {};
    all += (all.empty() ? "" : ", ") + std::string(one);
  }
  return fail(ErrorCode::invalid_argument, "'" + std::string(key) + "' must be one of " + all,
              std::string(key));
}

Result<> check_ostype(const OsType& type) {
  if (auto ok = check_type_name(type.name); !ok) return ok;
  if (auto ok = check_choice(type.disk_type, "disk_type", {"virtio", "sata", "ide"}); !ok) return ok;
  if (auto ok = check_choice(type.nic_type, "nic_type", {"virtio", "e1000", "rtl8139"}); !ok) return ok;
  if (auto ok = check_choice(type.sound_type, "sound_type", {"none", "ac97", "ich6", "ich9"}); !ok) return ok;
  return check_choice(type.folder_protocol, "folder_protocol", {"virtiofs", "smb"});
}

Result<VmType> find(store::Sql& sql, std::string_view name) {
  if (auto ok = check_type_name(name); !ok) return fail(ok.error());
  auto type = store::find_vmtype(sql, name);
  if (!type) return fail(ErrorCode::not_found, "there is no VM type " + std::string(name), "name");
  return std::move(*type);
}

Result<OsType> find_os(store::Sql& sql, std::string_view name) {
  if (auto ok = check_type_name(name); !ok) return fail(ok.error());
  auto type = store::find_ostype(sql, name);
  if (!type) return fail(ErrorCode::not_found, "there is no OS type " + std::string(name), "name");
  return std::move(*type);
}

}  // namespace

Result<Page<VmType>> Cloud::vmtypes(const Principal& who) {
  if (auto ok = check(who, Deed::see_vmtypes, "", ""); !ok) return fail(ok.error());
  return impl_->store.read([](store::Sql& sql) -> Result<Page<VmType>> {
    return Page<VmType>{store::list_vmtypes(sql), ""};
  });
}

Result<VmType> Cloud::vmtype(const Principal& who, std::string_view name) {
  if (auto ok = check(who, Deed::see_vmtypes, "", ""); !ok) return fail(ok.error());
  return impl_->store.read([&](store::Sql& sql) { return find(sql, name); });
}

Result<VmType> Cloud::put_vmtype(const Principal& who, const VmType& type) {
  if (auto ok = check(who, Deed::change_vmtypes, "", type.name); !ok) return fail(ok.error());
  if (auto ok = check_vmtype(type); !ok) return fail(ok.error());
  return impl_->store.write([&](store::Sql& sql) -> Result<VmType> {
    store::put_vmtype(sql, type);
    impl_->audit(sql, who, "vmtype.put", type.name, to_json(type).dump());
    return type;
  });
}

Result<VmType> Cloud::change_vmtype(const Principal& who, std::string_view name, const VmTypeChange& change) {
  if (auto ok = check(who, Deed::change_vmtypes, "", name); !ok) return fail(ok.error());
  return impl_->store.write([&](store::Sql& sql) -> Result<VmType> {
    auto type = find(sql, name);
    if (!type) return type;
    type->memory_mib = change.memory_mib.value_or(type->memory_mib);
    type->cpus = change.cpus.value_or(type->cpus);
    type->limits = changed(type->limits, change.limits);
    if (auto ok = check_vmtype(*type); !ok) return fail(ok.error());
    store::put_vmtype(sql, *type);
    impl_->audit(sql, who, "vmtype.change", name, to_json(*type).dump());
    return type;
  });
}

Result<VmType> Cloud::delete_vmtype(const Principal& who, std::string_view name) {
  if (auto ok = check(who, Deed::change_vmtypes, "", name); !ok) return fail(ok.error());
  return impl_->store.write([&](store::Sql& sql) -> Result<VmType> {
    auto type = find(sql, name);
    if (!type) return type;
    if (const auto user = sql.one("SELECT insid FROM instances WHERE vmtype = ? LIMIT 1", {name})) {
      return fail(ErrorCode::conflict, "instance " + user->text(0) + " is of type " + std::string(name) +
                                           ": delete it first, or change the type instead");
    }
    store::remove_vmtype(sql, name);
    impl_->audit(sql, who, "vmtype.delete", name);
    return type;
  });
}

Result<Page<OsType>> Cloud::ostypes(const Principal& who) {
  if (auto ok = check(who, Deed::see_vmtypes, "", ""); !ok) return fail(ok.error());
  return impl_->store.read([](store::Sql& sql) -> Result<Page<OsType>> {
    return Page<OsType>{store::list_ostypes(sql), ""};
  });
}

Result<OsType> Cloud::ostype(const Principal& who, std::string_view name) {
  if (auto ok = check(who, Deed::see_vmtypes, "", ""); !ok) return fail(ok.error());
  return impl_->store.read([&](store::Sql& sql) { return find_os(sql, name); });
}

Result<OsType> Cloud::put_ostype(const Principal& who, const OsType& type) {
  if (auto ok = check(who, Deed::change_vmtypes, "", type.name); !ok) return fail(ok.error());
  if (auto ok = check_ostype(type); !ok) return fail(ok.error());
  return impl_->store.write([&](store::Sql& sql) -> Result<OsType> {
    store::put_ostype(sql, type);
    impl_->audit(sql, who, "ostype.put", type.name, to_json(type).dump());
    return type;
  });
}

Result<OsType> Cloud::change_ostype(const Principal& who, std::string_view name, const OsTypeChange& change) {
  if (auto ok = check(who, Deed::change_vmtypes, "", name); !ok) return fail(ok.error());
  return impl_->store.write([&](store::Sql& sql) -> Result<OsType> {
    auto type = find_os(sql, name);
    if (!type) return type;
    type->disk_type = change.disk_type.value_or(type->disk_type);
    type->nic_type = change.nic_type.value_or(type->nic_type);
    type->sound_type = change.sound_type.value_or(type->sound_type);
    type->folder_protocol = change.folder_protocol.value_or(type->folder_protocol);
    if (auto ok = check_ostype(*type); !ok) return fail(ok.error());
    store::put_ostype(sql, *type);
    impl_->audit(sql, who, "ostype.change", name, to_json(*type).dump());
    return type;
  });
}

Result<OsType> Cloud::delete_ostype(const Principal& who, std::string_view name) {
  if (auto ok = check(who, Deed::change_vmtypes, "", name); !ok) return fail(ok.error());
  return impl_->store.write([&](store::Sql& sql) -> Result<OsType> {
    auto type = find_os(sql, name);
    if (!type) return type;
    if (const auto user = sql.one("SELECT name FROM images WHERE ostype = ? LIMIT 1", {name})) {
      return fail(ErrorCode::conflict,
                  "image " + user->text(0) + " is of OS type " + std::string(name) + ": delete it first");
    }
    store::remove_ostype(sql, name);
    impl_->audit(sql, who, "ostype.delete", name);
    return type;
  });
}

}  // namespace educloud::clc
