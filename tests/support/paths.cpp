#include "support/paths.hpp"

namespace educloud::test {

const std::filesystem::path& source_dir() {
  static const std::filesystem::path path = EDUCLOUD_SOURCE_DIR;
  return path;
}

const std::filesystem::path& binary_dir() {
  static const std::filesystem::path path = EDUCLOUD_BINARY_DIR;
  return path;
}

}  // namespace educloud::test
