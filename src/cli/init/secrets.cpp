#include "cli/init/secrets.hpp"

#include <sodium.h>

#include "cli/init/ssh_keys.hpp"
#include "common/base/random.hpp"
#include "common/sys/file.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::cli {
namespace {

constexpr std::size_t kSecretBytes = 32;

/// The secret in `path`, made by `make` if there is no such file.
Result<std::string> load_or_make(const std::filesystem::path& path, const std::optional<Owner>& owner,
                                 const std::function<std::string()>& make) {
  auto present = sys::read_secret_file(path);
  if (present) {
    if (present->empty())
      return fail(ErrorCode::corrupt, path.string() + " is empty: remove it and run init again");
    if (auto ok = give_file(path, owner); !ok) return fail(ok.error());
    return present;
  }
  if (present.error().code != ErrorCode::not_found) return fail(present.error());
  std::string made = make();
  if (auto ok = sys::write_file_atomically(path, made + "\n", 0600); !ok) return fail(ok.error());
  if (auto ok = give_file(path, owner); !ok) return fail(ok.error());
  return made;
}

}  // namespace

Result<Secrets> load_or_make_secrets(const std::filesystem::path& directory, const InitPlan& plan,
                                     const std::optional<Owner>& owner) {
  if (auto ok = sys::make_directories(directory, 0700); !ok) return fail(ok.error());
  if (auto ok = guard_directory(directory, owner); !ok) return fail(ok.error());
  Secrets secrets;
  secrets.directory = directory;
  const auto draw = [] { return random_hex(kSecretBytes); };
  auto key = load_or_make(directory / "data_key", owner, draw);
  if (!key) return fail(key.error());
  secrets.data_key = *key;
  for (const auto& user : plan.broker_users()) {
    auto password = load_or_make(directory / Secrets::password_file(user), owner, draw);
    if (!password) return fail(password.error());
    secrets.passwords[user] = *password;
  }
  for (const auto& node : plan.nodes) {
    const std::string derived = transfer::derive_node_key(secrets.data_key, node.name);
    const auto path = directory / Secrets::node_key_file(node.name);
    auto stored = load_or_make(path, owner, [&] { return derived; });
    if (!stored) return fail(stored.error());
    if (*stored != derived) {
      return fail(ErrorCode::conflict,
                  path.string() + " does not belong to " + (directory / "data_key").string() +
                      ": remove it and run init again, then copy the bundle to the node");
    }
    secrets.node_keys[node.name] = *stored;
    auto folder_key = load_or_make(directory / Secrets::folder_key_file(node.name), owner, make_ssh_key);
    if (!folder_key) return fail(folder_key.error());
    secrets.folder_keys[node.name] = *folder_key;
  }
  for (const auto& cluster : plan.clusters) {
    if (!plan.mounts_folders(cluster)) continue;
    auto folder_key =
        load_or_make(directory / Secrets::cc_folder_key_file(cluster.name), owner, make_ssh_key);
    if (!folder_key) return fail(folder_key.error());
    secrets.cc_folder_keys[cluster.name] = *folder_key;
  }
  auto host_key = load_or_make(directory / "sftp_host_key", owner, make_ssh_key);
  if (!host_key) return fail(host_key.error());
  secrets.sftp_host_key = *host_key;
  return secrets;
}

std::string make_password() {
  static constexpr std::string_view kAlphabet = "abcdefghijkmnpqrstuvwxyzACDEFGHJKLMNPQRTUVWXY34679";
  constexpr std::size_t kLength = 20;
  std::string out;
  for (std::size_t i = 0; i < kLength; ++i) out += kAlphabet[randombytes_uniform(kAlphabet.size())];
  return out;
}

}  // namespace educloud::cli
