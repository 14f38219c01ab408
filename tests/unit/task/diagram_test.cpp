#include "common/task/diagram.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "common/sys/file.hpp"
#include "support/paths.hpp"

namespace educloud::task {
namespace {

using ::testing::HasSubstr;

TEST(Diagram, IsWhatTheDocumentSays) {
  const std::string file = test::source_dir() / "docs/states.md";
  if (const char* update = std::getenv("EDUCLOUD_UPDATE_DOCS");
      update != nullptr && std::string_view(update) == "1") {
    ASSERT_TRUE(sys::write_file_atomically(file, state_diagram()));
  }
  EXPECT_EQ(sys::read_file(file).value_or(""), state_diagram())
      << "the table changed: run EDUCLOUD_UPDATE_DOCS=1 bin/unit_task and commit docs/states.md";
}

TEST(Diagram, ShowsTheWayThrough) {
  const auto text = state_diagram();
  EXPECT_THAT(text, HasSubstr("stateDiagram-v2"));
  EXPECT_THAT(text, HasSubstr("[*] --> preparing_init"));
  EXPECT_THAT(text, HasSubstr("submitting_gone --> [*]"));
  EXPECT_THAT(text, HasSubstr("| editing/running | cancel | editing/deleting | send_delete |"));
}

}  // namespace
}  // namespace educloud::task
