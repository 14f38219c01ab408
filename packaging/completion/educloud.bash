# bash completion for educloud. A test compares the table below with the program.

declare -gA _educloud_commands=(
  [init]="--host --cluster --node --address --config-dir --state-dir --prefix --out --broker-host --broker-port --clc-port --walrus-port --cc-port --nc-port --admin --admin-password-file --reset-admin-password --hypervisor --accel --libvirt-uri --owner --in-place --replace-config --definitions-only"
  [login]="--user --password-file"
  [logout]=""
  [status]=""
  [node list]=""
  [node show]=""
  [node enable]=""
  [node no-new]=""
  [node drain]=""
  [node roll]="--cluster --run --reboot --timeout"
  [cluster list]=""
  [cluster set]="--database-mode"
  [image list]=""
  [image show]=""
  [image versions]=""
  [image set]="--name --description --usage --database-gib --wait --timeout"
  [image import]="--name --resume --format --ostype --usage --database-gib --description --wait --timeout"
  [image modify]="--type --memory-mib --cpus --cluster --node --version --description --wait-running --wait --timeout"
  [image build]="--name --type --memory-mib --cpus --cluster --node --version --description --wait-running --wait --timeout"
  [image submit]="--on-conflict --wait --timeout"
  [image push]="--version --cluster --node --wait --timeout"
  [image export]="--version --output --format"
  [image url]="--version --hours"
  [image diff]=""
  [image compact]=""
  [image rollback]="--to --wait --timeout"
  [image prune]="--versions --keep --wait --timeout"
  [image delete]="--wait --timeout"
  [vm define]="--image --name --type --memory-mib --cpus --cluster --node --version --hostname --user --ssh-key-file --password-file --temporary --lazy --server --autostart --no-autostart --folders --wait --timeout"
  [vm set]="--name --autostart --no-autostart --folders --node --cluster --type --memory-mib --cpus --version"
  [vm list]=""
  [vm show]=""
  [vm run]="--lazy --wait --timeout"
  [vm stop]="--wait --timeout"
  [vm pause]="--wait --timeout"
  [vm resume]="--wait --timeout"
  [vm restart]="--wait --timeout"
  [vm migrate]="--to --wait --timeout"
  [vm limit]="--cpu-percent --cpu-weight --disk-iops --disk-mib-s --net-mbit-s --wait --timeout"
  [vm snapshot take]="--name --memory --wait --timeout"
  [vm snapshot list]=""
  [vm snapshot restore]="--wait --timeout"
  [vm snapshot delete]="--wait --timeout"
  [vm delete]="--wait --timeout --force"
  [vm console]=""
  [vm screenshot]="--output"
  [vmtype list]=""
  [vmtype set]="--memory-mib --cpus --cpu-percent --cpu-weight --disk-iops --disk-mib-s --net-mbit-s"
  [vmtype delete]=""
  [ostype list]=""
  [ostype set]="--disk --nic --sound --folders"
  [ostype delete]=""
  [task list]="--all"
  [task show]=""
  [task why]=""
  [task watch]="--timeout"
  [task submit]="--on-conflict --wait --timeout"
  [task start]="--wait --timeout"
  [task stop]="--wait --timeout"
  [task cancel]="--wait --timeout --force"
  [plan]="--image --count --version --vmtype --type --memory-mib --cpus --cluster --node --at"
  [dead-letter list]=""
  [dead-letter show]=""
  [dead-letter retry]=""
  [dead-letter drop]="--all"
  [backup]="--to --list"
  [restore]="--config --state-dir"
  [walrus fsck]="--config --prefix"
  [walrus export]="--version --output --format --config --prefix"
  [walrus gc]="--grace --config --prefix"
  [walrus stats]="--config --prefix"
)
_educloud_global="--url --ca --json --quiet --help --version"

_educloud() {
  local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} path='' one at
  COMPREPLY=()
  # The words of the command itself: skip options, and stop as soon as a command is complete.
  for ((at = 1; at < COMP_CWORD; at++)); do
    one=${COMP_WORDS[at]}
    [[ $one == -* ]] && continue
    if [[ -z ${_educloud_commands[${path:-none}]+x} ]] && _educloud_is_prefix "${path:+$path }$one"; then
      path=${path:+$path }$one
    fi
  done
  case $previous in
    --*-file | --ca | --config | --to | --output | -o | --config-dir | --state-dir | --prefix | --out)
      mapfile -t COMPREPLY < <(compgen -f -- "$word")
      return ;;
    --on-conflict) mapfile -t COMPREPLY < <(compgen -W "fail replace" -- "$word"); return ;;
    --format) mapfile -t COMPREPLY < <(compgen -W "auto qcow2 raw vdi vmdk vhdx" -- "$word"); return ;;
    --usage) mapfile -t COMPREPLY < <(compgen -W "desktop server" -- "$word"); return ;;
    --ostype) mapfile -t COMPREPLY < <(compgen -W "linux windows other" -- "$word"); return ;;
    --disk) mapfile -t COMPREPLY < <(compgen -W "virtio sata ide" -- "$word"); return ;;
    --nic) mapfile -t COMPREPLY < <(compgen -W "virtio e1000 rtl8139" -- "$word"); return ;;
    --folders) mapfile -t COMPREPLY < <(compgen -W "virtiofs smb" -- "$word"); return ;;
    --database-mode) mapfile -t COMPREPLY < <(compgen -W "iscsi nbd copy" -- "$word"); return ;;
    --sound) mapfile -t COMPREPLY < <(compgen -W "none ac97 ich6 ich9" -- "$word"); return ;;
    --accel) mapfile -t COMPREPLY < <(compgen -W "auto kvm tcg" -- "$word"); return ;;
    --hypervisor) mapfile -t COMPREPLY < <(compgen -W "libvirt fake" -- "$word"); return ;;
  esac
  if [[ -n $path && -n ${_educloud_commands[${path:-none}]+x} ]]; then
    if [[ $word == -* ]]; then
      mapfile -t COMPREPLY < <(compgen -W "${_educloud_commands[$path]} $_educloud_global" -- "$word")
    elif [[ $path == "image import" || $path == "restore" ]]; then
      mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
    return
  fi
  if [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$_educloud_global" -- "$word")
  else
    mapfile -t COMPREPLY < <(compgen -W "$(_educloud_next "$path")" -- "$word")
  fi
}

# True if $1 begins a command or is one.
_educloud_is_prefix() {
  local name
  for name in "${!_educloud_commands[@]}"; do
    [[ $name == "$1" || $name == "$1 "* ]] && return 0
  done
  return 1
}

# The words that may follow $1.
_educloud_next() {
  local name rest
  for name in "${!_educloud_commands[@]}"; do
    rest=$name
    if [[ -n $1 ]]; then
      [[ $name == "$1 "* ]] || continue
      rest=${name#"$1 "}
    fi
    echo "${rest%% *}"
  done | sort -u
}

complete -F _educloud educloud
