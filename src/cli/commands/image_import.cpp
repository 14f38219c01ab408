#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/commands/upload_target.hpp"
#include "cli/commands/wait.hpp"

namespace educloud::cli {
namespace {

struct ImportArguments {
  std::filesystem::path file;
  std::string name, ostype = "linux", usage = "desktop", description, format = "auto", resume;
  int database_gib = 0;
  WaitOptions wait;
};

/// The upload as the API wants it, from a new image or from the task that waits for its file.
Result<nlohmann::json> open_import(Session& session, const ImportArguments& a, std::uint64_t size) {
  if (!a.resume.empty()) {
    auto upload = session.get("/tasks/" + http::url_encode(a.resume) + "/upload");
    if (!upload) return upload;
    return nlohmann::json{{"tid", a.resume}, {"upload", *upload}};
  }
  nlohmann::json body = {{"name", a.name}, {"ostype", a.ostype}, {"usage", a.usage}, {"size_bytes", size}};
  body["filename"] = a.file.filename().string();
  if (!a.description.empty()) body["description"] = a.description;
  if (a.format != "auto") body["format"] = a.format;
  if (a.database_gib > 0) body["database_gib"] = a.database_gib;
  return session.post("/images", body);
}

Result<> import_image(Context& context, Session& session, const ImportArguments& a) {
  std::error_code ignored;
  if (a.name.empty() == a.resume.empty())
    return fail(ErrorCode::invalid_argument, "give --name, or --resume to continue an import", "name");
  if (!std::filesystem::is_regular_file(a.file, ignored)) {
    return fail(ErrorCode::invalid_argument, a.file.string() + " is not there or not a file", "FILE");
  }
  if (a.database_gib > 0 && (a.usage != "server" || !a.resume.empty())) {
    return fail(ErrorCode::invalid_argument, "--database-gib goes with --usage server, of a new image",
                "database_gib");
  }
  auto opened = open_import(session, a, std::filesystem::file_size(a.file, ignored));
  if (!opened) return fail(opened.error());
  const std::string tid = cell(*opened, "tid");
  auto request = parse_upload_target(opened->value("upload", nlohmann::json::object()));
  if (!request) return fail(request.error());
  request->file = a.file;
  request->client.tls_ca_file = context.session.ca_file;
  const std::string again = "educloud image import " + a.file.string() + " --resume " + tid;
  context.console.note("image " + request->imgid + ", task " + tid);

  const SystemClock clock;
  ProgressPrinter progress(!context.console.quiet, context.console.stderr_is_terminal(), clock);
  auto receipt = transfer::upload_version(*request, [&](const transfer::Progress& now) {
    progress.show(Step{.label = now.prompt, .bytes_done = now.bytes_done, .bytes_total = now.bytes_total});
  });
  progress.finish();
  if (!receipt) {
    auto error = receipt.error();
    if (is_retryable(error.code)) error.message += "; continue with: " + again;
    return fail(std::move(error));
  }
  nlohmann::json result = {
      {"imgid", request->imgid}, {"tid", tid}, {"version", request->version}, {"state", "uploaded"}};
  if (a.wait.wait) {
    auto task = wait_for_task(context, session, tid, Goal::ended, a.wait.timeout_s);
    if (!task) return fail(task.error());
    result["state"] = "ready";
  }
  context.console.result(result, "image " + request->imgid + " version " + std::to_string(request->version) +
                                     " " + cell(result, "state"));
  return {};
}

}  // namespace

void add_image_import_command(CLI::App& image, Context& context) {
  auto* command = image.add_subcommand("import", "Upload a disk image; a cut upload continues where it was");
  auto arguments = std::make_shared<ImportArguments>();
  auto& a = *arguments;
  command->add_option("FILE", a.file, "qcow2, raw, vdi, vmdk or vhdx")->required();
  command->add_option("--name", a.name, "Name of the image, unique in the cloud");
  command->add_option("--resume", a.resume, "Continue the import of this task instead of making an image");
  command->add_option("--format", a.format, "What FILE is; auto: by its header")
      ->check(CLI::IsMember({"auto", "qcow2", "raw", "vdi", "vmdk", "vhdx"}))
      ->capture_default_str();
  command->add_option("--ostype", a.ostype, "linux, windows, other")->capture_default_str();
  auto* usage =
      command->add_option("--usage", a.usage, "server: it gets a disk for its data, see --database-gib")
          ->check(CLI::IsMember({"desktop", "server"}))
          ->capture_default_str();
  command->add_option("--database-gib", a.database_gib, "Size of the disk for a server's data (default 10)")
      ->check(CLI::Range(1, 2048))
      ->needs(usage);
  command->add_option("--description", a.description, "For people");
  add_wait_options(*command, a.wait);
  on_command(*command, context,
             [&context, arguments](Session& session) { return import_image(context, session, *arguments); });
}

}  // namespace educloud::cli
