# Five sites under secure aggregation: to be sourced after world.sh, once e2e_begin was called. Sites 01 to 04 in one process, 05 in
# another, which is the one that is killed and the one that cheats.
#
#   start_last [VARIABLE=VALUE...]   site-05; start_agents starts the other four
#   end_all                   ends both
#   begin NAME EXCHANGE [TEXT]       everything anew, the job submitted; each site gets the same seed for its update
#   export_to NAME FILE, same_as FILE FILE     the published model; that two are the same bytes
#   bare_of five|four         the model of the same job without it, of all five or of the first four: fedavg-five, fedavg-four
make_world 5 'retention: {keep_rounds: 3}'
secure='secure_aggregation: {dropout: 0.3, survivors: 3}'
rounds=${rounds:-1}

agents_config 1 4
cp "$work/agents.yaml" "$work/four.yaml"
agents_config 5 1
sed 's/agent.sock/last.sock/; s/^state: sites/state: last/' "$work/agents.yaml" >"$work/last.yaml"
cp "$work/four.yaml" "$work/agents.yaml"
last=''
start_last() {
    env "$@" cohort-agent --config "$work/last.yaml" 2>>"$work/last.log" &
    last=$!
}
end_all() {
    stop "$agents"
    [ -z "$last" ] || stop "$last"
    last=''
}
trap 'failed=$?; [ -z "$last" ] || kill -9 "$last" 2>/dev/null; (exit $failed); e2e_end' EXIT

begin() {
    rm -rf "$work/last"
    new_world
    strategy=${strategy:-fedavg} quorum=${quorum:-4} deadline=${deadline:-60s} fill=${fill:-10s} job "$1" 5 "${3:-}
${attempts:-}"
    submit "$1"
    for of in four last; do
        cohort-agent prepare --config "$work/$of.yaml" --incarnation "$(job_field incarnation "$1")" --rounds 2 --exchange "$2" \
            --seed 5 >/dev/null 2>"$work/prepare.log" || die "prepare: $(cat "$work/prepare.log")"
    done
}
export_to() { cohortctl model export "$1" -o "$work/$2.safetensors" >/dev/null || die "export $1"; }
same_as() { cmp "$work/$1.safetensors" "$work/$2.safetensors" || die "$2: another model than $1"; }

bare_of() {
    fill=$([ "$1" = four ] && echo 1s || echo 10s) begin bare 0
    start_agents
    [ "$1" = four ] || start_last
    finishes bare 30
    export_to bare "${strategy:-fedavg}-$1"
    end_all
}
