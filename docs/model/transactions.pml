/* The transactions: each is one step, and ends with what holds of the rows after any commit. */

#ifdef BUG_NO_SPLIT
#define is_split(size) false
#else
#define is_split(size) (size > 1)
#endif
#ifdef BUG_NO_INDEX
#define index_allows(others) true
#else
#define index_allows(others) (others == 0)
#endif

/* Sets n to how many jobs are unfinished. */
inline count_unfinished() {
    n = 0;
    for (j : 0 .. JOBS - 1) {
        n = n + is_unfinished(j)
    }
}

/* Sets n to how many erasures a job has. */
inline count_batch(row) {
    n = 0;
    for (e : 0 .. ERASURES - 1) {
        n = n + in_job(e, row)
    }
}

/* Sets j to a row that is free. */
inline find_free_row() {
    j = 0;
    do
    :: job[j].status == NoRow -> break
    :: else -> j++
    od
}

inline committed() {
    count_unfinished();
    promise(one_unfinished_job, n <= 1);
    n = 0;
    for (v : 1 .. newest) {
        promise(one_chain, version[v].parent == v - 1);
        promise(artifact_durable, version[v].durable || v == 1);
        n = n + !version[v].withdrawn
    }
    promise(one_chain, n == 1 && !version[current].withdrawn);
    for (e : 0 .. ERASURES - 1) {
        promise(all_or_nothing, erasure[e].status != Scheduled || is_unfinished(erasure[e].job))
    }
    /* A finished row that no worker knows is forgotten, which keeps the model small. */
    for (j : 0 .. JOBS - 1) {
        n = 0;
        for (w : 0 .. WORKERS - 1) {
            n = n + (is_busy(w) && worker[w].job == j)
        }
        if
        :: n == 0 && (job[j].status == Published || job[j].status == Ended) ->
            job[j].status = NoRow;
            job[j].parent = 0;
            job[j].fence = 0
        :: else
        fi
    }
}

inline settle(which, how) {
    erasure[which].status = how;
    erasure[which].job = 0;
    if
    :: how == Completed || how == Cancelled -> erasure[which].cohort = 0
    :: else
    fi
}

inline queue_again(row) {
    job[row].status = Queued;
    job[row].left = 0;
    job[row].holder = 0
}

inline finish(row, how) {
    queue_again(row);
    job[row].status = how;
    job[row].failures = 0;
    job[row].interruptions = 0;
    job[row].waits = 0;
    nudges = nudges & ~(1 << row)       /* it would find nothing to do */
}

/* A worker's part in a job is over; committed() follows. */
inline let_go(me, then) {
    worker[me].doing = then;
    worker[me].job = 0;
    worker[me].fence = 0;
    worker[me].batch = 0;
    worker[me].stored = 0;
    worker[me].away = 0;
    worker[me].due = 0;
    worker[me].missed = 0
}

inline submit(which) {
    erasure[which].status = Pending;
    committed()
}

/* The end of a job without a version: two halves of its batch, or a person looks at it. */
inline leave(row, splits) {
    count_batch(row);
    v = 0;              /* how many of the batch are dealt with */
    w = 0;              /* the half at hand: 1 + its first erasure */
    for (e : 0 .. ERASURES - 1) {
        if
        :: in_job(e, row) && splits && is_split(n) ->
            w = (v == 0 || v == n / 2 -> e + 1 : w);
            v++;
            settle(e, Pending);
            erasure[e].cohort = w
        :: in_job(e, row) && !(splits && is_split(n)) ->
#ifdef POISON
            promise(poison_alone_needs_attention, e == POISON);
#endif
            settle(e, NeedsAttention)
        :: else
        fi
    }
    finish(row, Ended)
}

inline fail_attempt(row) {
    job[row].failures++;
    if
    :: job[row].failures < ATTEMPTS ->
        queue_again(row);
        job[row].waits = 1
    :: else -> leave(row, 1)
    fi
}

/* A new job of the first pending erasure's cohort, from the current version. */
inline make_job(nudge_arrives) {
    count_unfinished();
    v = n;
    n = 0;              /* 1 + the cohort, or 0 */
    for (e : 0 .. ERASURES - 1) {
        n = (n == 0 && is_pending(e) -> erasure[e].cohort + 1 : n)
    }
    if
    :: n > 0 && index_allows(v) ->
        find_free_row();
        job[j].status = Queued;
        job[j].parent = current;
        for (e : 0 .. ERASURES - 1) {
            if
            :: is_pending(e) && erasure[e].cohort == n - 1 ->
                erasure[e].status = Scheduled;
                erasure[e].job = j
            :: else
            fi
        }
        nudges = nudges | (nudge_arrives << j)
    :: else
    fi;
    planning = 0;
    committed()
}

/* Planted: what is pending joins a job that is under way. */
inline join_unfinished() {
    j = 0;
    do
    :: is_unfinished(j) -> break
    :: else -> j++
    od;
    for (e : 0 .. ERASURES - 1) {
        if
        :: is_pending(e) ->
            erasure[e].status = Scheduled;
            erasure[e].job = j
        :: else
        fi
    }
    committed()
}

/* Takes back a job that ran longer than any may, whatever its worker does. */
inline stop_overlong() {
    j = 0;
    do
    :: job[j].status == Running -> break
    :: else -> j++
    od;
    fail_attempt(j);
    committed()
}

/* Takes back a job whose lease ran out. */
inline sweep() {
    j = 0;
    do
    :: has_run_out(j) -> break
    :: else -> j++
    od;
    w = job[j].holder - 1;
    promise(live_worker_keeps_its_lease,
        !is_busy(w) || worker[w].job != j || worker[w].missed);
    fail_attempt(j);
    committed()
}

/*
 * Out of a running job a cancel takes the job from its worker. The fence may stay as it is: a
 * queued job takes no write, and whoever claims it raises the fence.
 */
inline cancel(which) {
    promise(cancelled_stays_out, !erasure[which].done);
    j = erasure[which].job;
    n = (erasure[which].status == Scheduled);
    settle(which, Cancelled);
    if
    :: n == 1 ->
        count_batch(j);
        if
        :: n == 0 -> finish(j, Ended)
#ifndef BUG_CANCEL_LEAVES_RUNNING
        :: n > 0 && job[j].status == Running ->
            job[j].interruptions++;
            queue_again(j)
#endif
        :: else
        fi
    :: else
    fi;
    committed()
}

/* Planted: as of a queued job, though the job has moved on since it was read. */
inline cancel_as_read(which) {
    if
    :: erasure[which].status == Scheduled -> settle(which, Cancelled)
    :: else
    fi;
    committed()
}
