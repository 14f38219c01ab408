#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "clc/domain/types.hpp"
#include "clc/store/sql.hpp"

namespace educloud::clc::store {

/// A row with its place in the list: `id` is the cursor.
template <class T>
struct Listed {
  std::int64_t id = 0;
  T value;
};

std::optional<Image> find_image(Sql& sql, std::string_view imgid);
std::optional<Image> find_image_named(Sql& sql, std::string_view name);
/// At most `limit` images after `after`, in the order they were made.
std::vector<Listed<Image>> list_images(Sql& sql, std::int64_t after, int limit);
void add_image(Sql& sql, const Image& image);
/// Everything but imgid, owner and created_at.
void update_image(Sql& sql, const Image& image);
/// Its versions go with it.
void remove_image(Sql& sql, std::string_view imgid);
/// Gives out the next version number of an image, for good.
int take_version_number(Sql& sql, std::string_view imgid);
/// The server image whose database disk `database_imgid` is.
std::optional<Image> find_image_of_database(Sql& sql, std::string_view database_imgid);
/// To all versions of an image that have no database disk yet.
void give_database(Sql& sql, std::string_view imgid, int database_version);
/// Versions of `disk` that none of the server image's `imgid` names any more, are not in use, and are not
/// being removed already.
std::vector<int> spare_database_versions(Sql& sql, std::string_view imgid, const Image& disk);

std::optional<Version> find_version(Sql& sql, std::string_view imgid, int version);
std::vector<Version> list_versions(Sql& sql, std::string_view imgid);
void add_version(Sql& sql, const Version& version);
void set_pruning(Sql& sql, std::string_view imgid, int version, bool pruning);
void remove_version(Sql& sql, std::string_view imgid, int version);

std::vector<VmType> list_vmtypes(Sql& sql);
std::optional<VmType> find_vmtype(Sql& sql, std::string_view name);
std::optional<OsType> find_ostype(Sql& sql, std::string_view name);
std::vector<OsType> list_ostypes(Sql& sql);
void put_vmtype(Sql& sql, const VmType& one);
/// False: there is none.
bool remove_vmtype(Sql& sql, std::string_view name);
void put_ostype(Sql& sql, const OsType& one);
/// False: there is none. An image of it is in the way: constraint.
bool remove_ostype(Sql& sql, std::string_view name);

std::vector<Cluster> list_clusters(Sql& sql);
std::optional<Cluster> find_cluster(Sql& sql, std::string_view host);
/// `mode`: see Cluster.
void set_database_mode(Sql& sql, std::string_view host, std::string_view mode);
std::vector<Node> list_nodes(Sql& sql);
std::optional<Node> find_node(Sql& sql, std::string_view host);
void put_cluster(Sql& sql, std::string_view host);
/// Registers it, or moves it to another cluster; its state stays.
void add_node(Sql& sql, std::string_view host, std::string_view cluster);
/// Its state and lease.
void update_node(Sql& sql, const Node& node);

}  // namespace educloud::clc::store
