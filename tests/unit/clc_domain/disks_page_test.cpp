#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "clc/domain/vm_disks.hpp"
#include "support/paths.hpp"

namespace educloud::clc {
namespace {

struct Flow {
  const char* name;
  TaskKind kind;
  const char* insid;
  const char* usage;
};
constexpr std::array kFlows{Flow{"desktop MODIFY", TaskKind::modify, "TMP1", "desktop"},
                            Flow{"desktop BUILD", TaskKind::build, "TMP1", "desktop"},
                            Flow{"server MODIFY", TaskKind::modify, "TMP1", "server"},
                            Flow{"server BUILD", TaskKind::build, "TMP1", "server"},
                            Flow{"desktop run", TaskKind::run, "VD1", "desktop"},
                            Flow{"server run", TaskKind::run, "VS1", "server"}};

std::string name_for_reader(std::string path) {
  const auto swap = [&](std::string_view id, std::string_view word) {
    if (const auto at = path.find(id); at != std::string::npos) path.replace(at, id.size(), word);
  };
  swap("IMG1", "SRC");
  swap("IMG2", "DST");
  swap("VS1", "INSID");
  swap("ada", "USER");
  return path;
}

std::string row(const Flow& flow) {
  Task task;
  task.kind = flow.kind;
  task.insid = flow.insid;
  task.src = "IMG1";
  task.dst = flow.kind == TaskKind::build ? "IMG2" : "IMG1";
  std::string disks, folders;
  for (const auto& disk : disks_of(task, flow.usage))
    disks += (disks.empty() ? "`" : ", `") + name_for_reader(disk.file) + "` " + disk.mtype;
  const auto shared = folders_of(task, flow.usage, Account{"ada", false, "", 0});
  for (const auto& folder : shared.value()) {
    folders += (folders.empty() ? "" : ", ") + folder.name + ": `" + name_for_reader(folder.path) + "`" +
               (folder.read_only == 1 ? " read only" : "");
  }
  return std::string("| ") + flow.name + " | " + disks + " | " + folders + " |\n";
}

TEST(DisksPage, ShowsWhatACommandSays) {
  const std::string file = test::source_dir() / "docs/disks.md";
  std::stringstream all;
  std::ifstream in(file);
  all << in.rdbuf();
  std::string page = all.str();
  const std::string begin = "|---|---|---|\n", end = "<!-- end -->";
  const auto from = page.find(begin, page.find("<!-- disks:"));
  const auto to = page.find(end, from);
  ASSERT_NE(to, std::string::npos) << file;
  std::string wanted;
  for (const auto& flow : kFlows) wanted += row(flow);
  const auto first = from + begin.size();
  if (const char* update = std::getenv("EDUCLOUD_UPDATE_DOCS");
      update != nullptr && std::string(update) == "1") {
    page.replace(first, to - first, wanted);
    std::ofstream(file) << page;
    return;
  }
  EXPECT_EQ(page.substr(first, to - first), wanted)
      << "run EDUCLOUD_UPDATE_DOCS=1 bin/unit_clc_domain and commit docs/disks.md";
}

}  // namespace
}  // namespace educloud::clc
