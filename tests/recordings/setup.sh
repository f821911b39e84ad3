#!/usr/bin/env bash
# Record `decloud-trainer setup`, answered at its prompts in a tmux terminal of 80x60.
#
#   tests/recordings/setup.sh [COMMAND ...]      (default: decloud-trainer)
#
# Prints the last screen. Uses a home of its own and makes a wallet for the local network in it, so
# it can be run anywhere; exit code 1 if a question doesn't come.
set -euo pipefail
[ $# -gt 0 ] || set -- decloud-trainer
home=$(mktemp -d)
terminal=(tmux -L "decloud-recording-$$")
trap '"${terminal[@]}" kill-server 2>/dev/null || true; rm -rf "$home"' EXIT

printf -v command '%q ' "$@" setup
"${terminal[@]}" -f /dev/null new-session -d -x 80 -y 60 \
    "DECLOUD_HOME=$(printf %q "$home/decloud") $command; echo \"[exit \$?]\"; sleep 60"

screen() { "${terminal[@]}" capture-pane -p; }

# answer QUESTION TEXT: wait for the question, type the text and Enter.
answer() {
    for _ in $(seq 150); do
        if screen | grep -v '^$' | tail -1 | grep -qF -- "$1"; then
            "${terminal[@]}" send-keys -l -- "$2"
            "${terminal[@]}" send-keys Enter
            return
        fi
        sleep 0.2
    done
    printf 'no question %q on the screen:\n' "$1" >&2
    screen >&2
    exit 1
}

answer "Network [" "localnet"
answer "Choice [" "create"
answer "back it up [" "yes"
answer "Passphrase to encrypt" ""
answer "Preset [" ""
answer "Datasets" "digits, custom"
answer "Least reward in SOL [" "0.01"
answer "Greatest reward in SOL" ""
answer "Epochs per round [" "2"
answer "Rounds at once [" ""
for _ in $(seq 150); do
    if screen | grep -qF "[exit "; then
        screen | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'
        screen | grep -qF "[exit 0]"
        exit
    fi
    sleep 0.2
done
echo "setup has not ended:" >&2
screen >&2
exit 1
