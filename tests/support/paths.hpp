#pragma once

#include <filesystem>

namespace educloud::test {

/// The project's sources, for scripts, configuration files and pages that tests use. In a file of its own, so
/// that no other object depends on where the clone lies, and ccache knows them again in another one.
const std::filesystem::path& source_dir();
/// What was built: bin/ is below.
const std::filesystem::path& binary_dir();

}  // namespace educloud::test
