/* What the threads of a block, or of a warp, do together: each has to be there. */

static const char *all_or_none(machine *m, const char *why) {
    for (int t = 1; t < m->threads; t++) if (m->on[t] != m->on[0]) return complain(m, t, why);
    return 0;
}

static const char *branch(machine *m, const instruction *i) {
    const char *why = all_or_none(m, "goes another way than the first thread of its block");
    if (m->on[0]) m->next = i->number;
    return why;
}

static const char *leave(machine *m, const instruction *i) {
    const char *why = all_or_none(m, "ends, or does not, otherwise than the first thread of its block");
    if (m->on[0]) m->next = -1;
    return why;
}

static const char *barrier(machine *m, const instruction *i) {
    const char *why = all_or_none(m, "is at a barrier, or is not, otherwise than the first thread of its block");
    m->moment += m->on[0];
    return why;
}

static const char *trap(machine *m, const instruction *i) {
    EACH_THREAD return complain(m, t, "traps");
    return 0;
}

/* The lanes of a warp that carry out an instruction are to be those that its mask names, which is the source `k`. */
static const char *as_masked(machine *m, const instruction *i, int k) {
    EACH_THREAD {
        const uint32_t named = SOURCE(k, u32);
        if (!(named >> t % WARP & 1)) return complain(m, t, "meets the lanes of a mask that leaves it out");
        for (int lane = 0; lane < WARP; lane++)
            if (named >> lane & 1 && !m->on[t / WARP * WARP + lane])
                return complain(m, t, "meets the lanes of a mask, one of which is not there");
    }
    return 0;
}

static const char *meet(machine *m, const instruction *i) { return as_masked(m, i, 0); }

#define SHUFFLE(way, from, reaches) \
    static const char *shuffle_##way(machine *m, const instruction *i) { \
        uint32_t values[MOST_THREADS]; \
        const char *why = as_masked(m, i, 3); \
        if (why) return why; \
        for (int t = 0; t < m->threads; t++) values[t] = SOURCE(0, u32); \
        EACH_THREAD { \
            const int lane = t % WARP, by = SOURCE(1, u32) & 31, clamp = SOURCE(2, u32) & 31; \
            const int segment = SOURCE(2, u32) >> 8 & 31, last = (lane & segment) | (clamp & ~segment); \
            const int wanted = (from), source = (reaches) ? t - lane + wanted : t; \
            if (!m->on[source]) return complain(m, t, "takes the value of a lane that is not there"); \
            RESULT(0, u32, values[source]); \
        } \
        return 0; \
    }
SHUFFLE(bfly, lane ^ by, wanted <= last)
SHUFFLE(up, lane - by, wanted >= last)
SHUFFLE(down, lane + by, wanted <= last)
SHUFFLE(idx, (lane & segment) | (by & ~segment), wanted <= last)

#define REDUCE(name, type, prepared, both) \
    static const char *reduce_##name(machine *m, const instruction *i) { \
        cell values[MOST_THREADS]; \
        const char *why = as_masked(m, i, 1); \
        if (why) return why; \
        for (int t = 0; t < m->threads; t++) values[t].u32 = SOURCE(0, u32); \
        EACH_THREAD { \
            cell all, one; \
            for (int lane = 0, known = 0; lane < WARP; lane++) { \
                const int other = t / WARP * WARP + lane; \
                if (!m->on[other]) continue; \
                one.type = prepared(values[other].type); \
                all.type = known++ ? both(all.type, one.type) : one.type; \
            } \
            RESULT(0, type, all.type); \
        } \
        return 0; \
    }
#define SUM(a, b) ((a) + (b))
#define LESS(a, b) ((a) < (b) ? (a) : (b))
#define MORE(a, b) ((a) > (b) ? (a) : (b))
REDUCE(add_s32, u32, , SUM)
REDUCE(min_s32, s32, , LESS)
REDUCE(max_s32, s32, , MORE)
REDUCE(min_u32, u32, , LESS)
REDUCE(max_u32, u32, , MORE)
REDUCE(min_f32, f32, , min_f32)
REDUCE(max_f32, f32, , max_f32)
REDUCE(max_abs_f32, f32, fabsf, max_f32)
