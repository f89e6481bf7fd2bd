# What probe_worker.py does, for one object on standard input, in the language that is there everywhere. It parses no
# JSON: it finds its own words in the arguments.

asked() { printf '%s' "$TRANSOM_ARGS" | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }

leave() {
    asked message >&2
    exit "$1"
}

act() {
    case "$1" in
        args | '') printf %s "$TRANSOM_ARGS" ;;
        told) printf '%s\n' "$TRANSOM_BUCKET" "$TRANSOM_KEY" "$TRANSOM_CONTENT_TYPE" && cat ;;
        echo) cat ;;
        upper) tr a-z A-Z ;;
        length) wc -c | tr -d ' \n' ;;
        md5) md5sum | head -c 32 ;;
        append) cat && asked text | tr -d '\n' ;;
        grow) head -c "$(asked size)" /dev/zero | tr '\0' g ;;
        trickle) for _ in 1 2 3 4 5 6 7 8; do dd bs=1 count=1 2>/dev/null && sleep 0.02; done ;;
        empty) ;;
        raise) leave 1 ;;
        reject) leave 65 ;;
        skip) leave 100 ;;
        late) act grow && act "$(asked then)" ;;
        slow) sleep "$(asked seconds)" && cat ;;
        crash) kill -9 $$ ;;
        *) exit 2 ;;
    esac
}

export LC_ALL=C
act "$(asked do)"
