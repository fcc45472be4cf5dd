# Bash completion for cohortctl: source it, or install it as /usr/share/bash-completion/completions/cohortctl.
# A test holds it to `cohortctl --help --json`.

_cohortctl() {
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local everywhere='--socket --json --timeout --help ' command='' options='' files='' jobs='' agents=''
    local -a words=()
    local i

    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        -*) ;;
        *) [[ ${COMP_WORDS[i - 1]} == --socket || ${COMP_WORDS[i - 1]} == --timeout ]] || words+=("${COMP_WORDS[i]}") ;;
        esac
    done
    command="${words[0]} ${words[1]}"
    case ${words[0]} in status | watch | recommend | reload | verbs) command=${words[0]} ;; esac
    case $previous in
    --socket | --output | -o) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    --timeout | --limit | --round | --rounds | --count | --first | --days | --candidates) return ;;
    esac

    case $command in
        'status') ;;
        'watch') jobs=1 ;;
        'job submit') options='--wait --set '; files=1 ;;
        'job check') options='--set '; files=1 ;;
        'job list') ;;
        'job show') jobs=1 ;;
        'job wait') jobs=1 ;;
        'job scores') jobs=1 ;;
        'job bubbles') jobs=1 ;;
        'job pause') options='--wait '; jobs=1 ;;
        'job resume') jobs=1 ;;
        'job drain') options='--wait '; jobs=1 ;;
        'job cancel') options='--wait '; jobs=1 ;;
        'job set') jobs=1 ;;
        'round list') options='--limit '; jobs=1 ;;
        'round show') options='--round '; jobs=1 ;;
        'round explain') options='--round '; jobs=1 ;;
        'agent list') ;;
        'agent show') agents=1 ;;
        'agent explain') agents=1 ;;
        'agent models') options='--limit '; agents=1 ;;
        'agent enrol') options='--key --name '; files=1 ;;
        'agent revoke') agents=1 ;;
        'model export') options='--round --slot --agent --output '; jobs=1 ;;
        'model merge') options='--base --method --keep --scale --output '; files=1 ;;
        'model show') options='--set '; files=1 ;;
        'audit export') options='--output '; jobs=1 ;;
        'audit replay') jobs=1 ;;
        'audit verify') options='--update --head --plan '; files=1 ;;
        'recommend') options='--set --candidates --rounds --sigma --cancel-leftovers '; files=1 ;;
        'reload') ;;
        'verbs') ;;
        'pki init') options='--name '; files=1 ;;
        'pki issue') options='--dns --count --first --days '; files=1 ;;
        'pki revoke') files=1 ;;
        'pki refresh') files=1 ;;
        'pki list') files=1 ;;
        'privacy epsilon') options='--sigma --q --steps --delta --population ' ;;
        'privacy sigma') options='--q --steps --delta --epsilon --population ' ;;
        'privacy rounds') options='--sigma --q --delta --epsilon --population ' ;;
        'privacy compose') options='--event --relation --delta --population ' ;;
        'privacy table') files=1 ;;
        'selftest attack') options='--set --count --seed '; files=1 ;;
        'selftest dp') options='--set --count '; files=1 ;;
        'privacy plan') options='--set --examples --dimensions '; files=1 ;;
    esac

    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$everywhere$options" -- "$word")
    elif ((${#words[@]} == 0)); then
        mapfile -t COMPREPLY < <(compgen -W 'status watch job round agent model audit recommend reload verbs pki privacy selftest' -- "$word")
    elif ((${#words[@]} == 1)) && [[ -z $jobs ]]; then
        case ${words[0]} in
        job) mapfile -t COMPREPLY < <(compgen -W 'submit check list show wait bubbles scores pause resume drain cancel set' -- "$word") ;;
        round) mapfile -t COMPREPLY < <(compgen -W 'list show explain' -- "$word") ;;
        agent) mapfile -t COMPREPLY < <(compgen -W 'list show explain models enrol revoke' -- "$word") ;;
        model) mapfile -t COMPREPLY < <(compgen -W 'export merge show' -- "$word") ;;
        audit) mapfile -t COMPREPLY < <(compgen -W 'export replay verify' -- "$word") ;;
        pki) mapfile -t COMPREPLY < <(compgen -W 'init issue revoke refresh list' -- "$word") ;;
        selftest) mapfile -t COMPREPLY < <(compgen -W 'attack dp' -- "$word") ;;
        privacy) mapfile -t COMPREPLY < <(compgen -W 'epsilon sigma rounds compose table plan' -- "$word") ;;
        esac
    elif [[ -n $jobs ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(cohortctl job list 2>/dev/null | awk 'NR > 1 { print $1 }')" -- "$word")
    elif [[ -n $agents ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(cohortctl agent list 2>/dev/null | awk 'NR > 1 { print $1 }')" -- "$word")
    elif [[ -n $files ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}
complete -F _cohortctl cohortctl
