#include "clc/store/catalogue.hpp"

#include "clc/store/stored.hpp"

namespace educloud::clc::store {
namespace {

// The columns in the order the readers below take them; id last, where a list needs it.
constexpr std::string_view kImageById =
    "SELECT imgid, name, owner, ostype, usage, description, current_version, next_version, deleting, "
    "created_at, id, database_imgid, database_gib "
    "FROM images WHERE imgid = ?";
constexpr std::string_view kImageByName =
    "SELECT imgid, name, owner, ostype, usage, description, current_version, next_version, deleting, "
    "created_at, id, database_imgid, database_gib "
    "FROM images WHERE name = ?";
constexpr std::string_view kImages =
    "SELECT imgid, name, owner, ostype, usage, description, current_version, next_version, deleting, "
    "created_at, id, database_imgid, database_gib "
    "FROM images WHERE id > ? AND usage <> 'database' ORDER BY id LIMIT ?";

Image image_of(const Row& row) {
  Image image;
  image.imgid = row.text(0);
  image.name = row.text(1);
  image.owner = row.text(2);
  image.ostype = row.text(3);
  image.usage = row.text(4);
  image.description = row.text(5);
  image.current_version = static_cast<int>(row.number(6));
  image.next_version = static_cast<int>(row.number(7));
  image.deleting = row.flag(8);
  image.created_at = row.number(9);
  image.database_imgid = row.text(11);
  image.database_gib = static_cast<int>(row.number(12));
  return image;
}

Version version_of(const Row& row) {
  Version version;
  version.imgid = row.text(0);
  version.version = static_cast<int>(row.number(1));
  version.digest = row.text(2);
  version.size_bytes = row.number(3);
  version.virtual_size_bytes = row.number(4);
  version.format = row.text(5);
  version.parent = static_cast<int>(row.number(6));
  version.pruning = row.flag(7);
  version.created_at = row.number(8);
  version.receipt = row.text(9);
  version.database_version = static_cast<int>(row.number(10));
  return version;
}

VmType vmtype_of(const Row& row) {
  return {row.text(0), row.number(1), static_cast<int>(row.number(2)), stored<msg::Limits>(row.text(3))};
}

OsType ostype_of(const Row& row) {
  return {row.text(0), row.text(1), row.text(2), row.text(3), row.text(4)};
}

}  // namespace

std::optional<Image> find_image(Sql& sql, std::string_view imgid) {
  const auto row = sql.one(kImageById, {imgid});
  return row ? std::optional(image_of(*row)) : std::nullopt;
}

std::optional<Image> find_image_named(Sql& sql, std::string_view name) {
  const auto row = sql.one(kImageByName, {name});
  return row ? std::optional(image_of(*row)) : std::nullopt;
}

std::vector<Listed<Image>> list_images(Sql& sql, std::int64_t after, int limit) {
  std::vector<Listed<Image>> out;
  for (const auto& row : sql.all(kImages, {after, limit})) out.push_back({row.number(10), image_of(row)});
  return out;
}

void add_image(Sql& sql, const Image& image) {
  sql.run(
      "INSERT INTO images (imgid, name, owner, ostype, usage, description, current_version, next_version, "
      "deleting, created_at, database_imgid, database_gib) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      {image.imgid, image.name, image.owner, image.ostype, image.usage, image.description,
       image.current_version, image.next_version, image.deleting, image.created_at, image.database_imgid,
       image.database_gib});
}

void update_image(Sql& sql, const Image& image) {
  sql.run(
      "UPDATE images SET name = ?, ostype = ?, usage = ?, description = ?, current_version = ?, next_version "
      "= ?, deleting = ?, database_imgid = ?, database_gib = ? WHERE imgid = ?",
      {image.name, image.ostype, image.usage, image.description, image.current_version, image.next_version,
       image.deleting, image.database_imgid, image.database_gib, image.imgid});
}

void remove_image(Sql& sql, std::string_view imgid) {
  sql.run("DELETE FROM images WHERE imgid = ?", {imgid});
}

int take_version_number(Sql& sql, std::string_view imgid) {
  const auto taken = sql.number("SELECT next_version FROM images WHERE imgid = ?", {imgid});
  sql.run("UPDATE images SET next_version = next_version + 1 WHERE imgid = ?", {imgid});
  return static_cast<int>(taken);
}

std::optional<Version> find_version(Sql& sql, std::string_view imgid, int version) {
  const auto row = sql.one(
      "SELECT imgid, version, digest, size_bytes, virtual_size_bytes, format, parent, pruning, "
      "created_at, receipt, database_version FROM versions WHERE imgid = ? AND version = ?",
      {imgid, version});
  return row ? std::optional(version_of(*row)) : std::nullopt;
}

std::vector<Version> list_versions(Sql& sql, std::string_view imgid) {
  std::vector<Version> out;
  for (const auto& row : sql.all(
           "SELECT imgid, version, digest, size_bytes, virtual_size_bytes, format, parent, "
           "pruning, created_at, receipt, database_version FROM versions WHERE imgid = ? ORDER BY version",
           {imgid})) {
    out.push_back(version_of(row));
  }
  return out;
}

void add_version(Sql& sql, const Version& version) {
  sql.run(
      "INSERT INTO versions (imgid, version, digest, size_bytes, virtual_size_bytes, format, parent, "
      "pruning, "
      "created_at, receipt, database_version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      {version.imgid, version.version, version.digest, version.size_bytes, version.virtual_size_bytes,
       version.format, version.parent, version.pruning, version.created_at, version.receipt,
       version.database_version});
}

std::optional<Image> find_image_of_database(Sql& sql, std::string_view database_imgid) {
  const auto row = sql.one("SELECT imgid FROM images WHERE database_imgid = ?", {database_imgid});
  return row ? find_image(sql, row->text(0)) : std::nullopt;
}

void give_database(Sql& sql, std::string_view imgid, int database_version) {
  sql.run("UPDATE versions SET database_version = ? WHERE imgid = ? AND database_version = 0",
          {database_version, imgid});
}

std::vector<int> spare_database_versions(Sql& sql, std::string_view imgid, const Image& disk) {
  std::vector<int> out;
  for (const auto& row :
       sql.all("SELECT version FROM versions d WHERE imgid = ?1 AND version <> ?3 AND pruning = 0 "
               "AND NOT EXISTS (SELECT 1 FROM versions v WHERE v.imgid = ?2 AND "
               "v.database_version = d.version) ORDER BY version",
               {disk.imgid, imgid, disk.current_version})) {
    out.push_back(static_cast<int>(row.number(0)));
  }
  return out;
}

void set_pruning(Sql& sql, std::string_view imgid, int version, bool pruning) {
  sql.run("UPDATE versions SET pruning = ? WHERE imgid = ? AND version = ?", {pruning, imgid, version});
}

void remove_version(Sql& sql, std::string_view imgid, int version) {
  sql.run("DELETE FROM versions WHERE imgid = ? AND version = ?", {imgid, version});
}

std::vector<VmType> list_vmtypes(Sql& sql) {
  std::vector<VmType> out;
  for (const auto& row : sql.all("SELECT name, memory_mib, cpus, limits FROM vmtypes ORDER BY name"))
    out.push_back(vmtype_of(row));
  return out;
}

std::optional<VmType> find_vmtype(Sql& sql, std::string_view name) {
  const auto row = sql.one("SELECT name, memory_mib, cpus, limits FROM vmtypes WHERE name = ?", {name});
  return row ? std::optional(vmtype_of(*row)) : std::nullopt;
}

void put_vmtype(Sql& sql, const VmType& one) {
  sql.run(
      "INSERT INTO vmtypes (name, memory_mib, cpus, limits) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) DO "
      "UPDATE SET memory_mib = ?2, cpus = ?3, limits = ?4",
      {one.name, one.memory_mib, one.cpus, to_column(one.limits)});
}

bool remove_vmtype(Sql& sql, std::string_view name) {
  return sql.run("DELETE FROM vmtypes WHERE name = ?", {name}) > 0;
}

std::optional<OsType> find_ostype(Sql& sql, std::string_view name) {
  const auto row = sql.one(
      "SELECT name, disk_type, nic_type, sound_type, folder_protocol FROM ostypes WHERE name = ?", {name});
  return row ? std::optional(ostype_of(*row)) : std::nullopt;
}

std::vector<OsType> list_ostypes(Sql& sql) {
  std::vector<OsType> out;
  for (const auto& row :
       sql.all("SELECT name, disk_type, nic_type, sound_type, folder_protocol FROM ostypes ORDER BY name"))
    out.push_back(ostype_of(row));
  return out;
}

void put_ostype(Sql& sql, const OsType& one) {
  sql.run(
      "INSERT INTO ostypes (name, disk_type, nic_type, sound_type, folder_protocol) VALUES (?1, ?2, ?3, ?4, "
      "?5) ON CONFLICT (name) DO UPDATE SET disk_type = ?2, nic_type = ?3, sound_type = ?4, folder_protocol "
      "= "
      "?5",
      {one.name, one.disk_type, one.nic_type, one.sound_type, one.folder_protocol});
}

bool remove_ostype(Sql& sql, std::string_view name) {
  return sql.run("DELETE FROM ostypes WHERE name = ?", {name}) > 0;
}

std::vector<Cluster> list_clusters(Sql& sql) {
  std::vector<Cluster> out;
  for (const auto& row : sql.all("SELECT host, database_mode FROM clusters ORDER BY host"))
    out.push_back({row.text(0), row.text(1)});
  return out;
}

std::optional<Cluster> find_cluster(Sql& sql, std::string_view host) {
  const auto row = sql.one("SELECT host, database_mode FROM clusters WHERE host = ?", {host});
  return row ? std::optional(Cluster{row->text(0), row->text(1)}) : std::nullopt;
}

void set_database_mode(Sql& sql, std::string_view host, std::string_view mode) {
  sql.run("UPDATE clusters SET database_mode = ? WHERE host = ?", {mode, host});
}

namespace {

Node node_of(const Row& row) {
  const auto state = parse_node_state(row.text(2));
  if (!state) throw Abort{Error{ErrorCode::corrupt, "node " + row.text(0) + " has an unknown state", {}}};
  return {row.text(0), row.text(1), *state, row.number(3), row.number(4), row.number(5)};
}

}  // namespace

std::vector<Node> list_nodes(Sql& sql) {
  std::vector<Node> out;
  for (const auto& row :
       sql.all("SELECT host, cluster, state, lease_epoch, lost_at, booted_at FROM nodes ORDER BY host")) {
    out.push_back(node_of(row));
  }
  return out;
}

std::optional<Node> find_node(Sql& sql, std::string_view host) {
  const auto row = sql.one(
      "SELECT host, cluster, state, lease_epoch, lost_at, booted_at FROM nodes WHERE host = ?", {host});
  return row ? std::optional(node_of(*row)) : std::nullopt;
}

void put_cluster(Sql& sql, std::string_view host) {
  sql.run("INSERT OR IGNORE INTO clusters (host) VALUES (?)", {host});
}

void add_node(Sql& sql, std::string_view host, std::string_view cluster) {
  sql.run(
      "INSERT INTO nodes (host, cluster) VALUES (?, ?) "
      "ON CONFLICT (host) DO UPDATE SET cluster = excluded.cluster",
      {host, cluster});
}

void update_node(Sql& sql, const Node& node) {
  sql.run("UPDATE nodes SET state = ?, lease_epoch = ?, lost_at = ?, booted_at = ? WHERE host = ?",
          {to_string(node.state), node.lease_epoch, node.lost_at, node.booted_at, node.host});
}

}  // namespace educloud::clc::store
