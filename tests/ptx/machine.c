/* A block of a GPU's threads, all in step: an instruction is a loop over them. What must not be, or need not always be
   as it is here, ends the launch with a complaint. */

#include "machine.h"
#include "numbers.h"
#include "memory.h"
#include "threads.h"
#include "operations.inc" /* from operations.py: what only computes, and the table of all instructions */

/* The halves that hold something of result `k`, given those of which all sources do. */
static uint8_t held_by(const machine *m, const instruction *i, int k, uint8_t in_all) {
    const int32_t *sources = i->operand + i->results;
    switch (i->holds) {
        case SAME_HALVES: return in_all;
        case JOINED: return LOWER * (m->held[sources[0]] == BOTH) + UPPER * (m->held[sources[1]] == BOTH);
        case PARTED: return in_all >> k & 1 ? BOTH : NOTHING;
        default: return in_all == BOTH ? BOTH : NOTHING;
    }
}

/* A compiler may compute with registers that it put nothing in, as long as nothing comes of it. */
static const char *carry_out(machine *m, const instruction *i) {
    memset(m->on, 1, m->threads);
    if (i->guard >= 0) {
        const cell *holds = m->registers + (int64_t)i->guard * m->threads;
        int any = 0;
        if (!m->held[i->guard]) return complain(m, 0, "depends on a predicate that nothing was put in");
        for (int t = 0; t < m->threads; t++) any |= m->on[t] = holds[t].u8 != i->negated;
        if (!any) return 0;
    }
    uint8_t in_all = BOTH, made[14];
    for (int k = i->results; k < i->operands; k++) in_all &= m->held[i->operand[k]];
    if (i->holds == MUST && in_all != BOTH) return complain(m, 0, "makes use of a register that nothing was put in");
    for (int k = 0; k < i->results; k++) made[k] = held_by(m, i, k, in_all);
    const char *why = operations[i->operation](m, i);
    for (int k = 0; k < i->results; k++) m->held[i->operand[k]] = made[k];
    return why;
}

/* Run blocks, of which `blocks` has x, y and z. The first five registers are those, the thread and its lane; those up to
   `variable` hold `numbers`, which are the same for all; what the others hold when a block begins, nobody may ask. */
const char *launch(machine *m, const uint64_t *numbers, int32_t variable, const int32_t *blocks, int64_t count) {
    cell *const variables = m->registers + (int64_t)variable * m->threads;
    m->launched = m->moment + 1;
    for (int t = 0; t < m->threads; t++) {
        m->registers[3 * m->threads + t].u64 = t;
        m->registers[4 * m->threads + t].u64 = t % WARP;
        for (int k = 5; k < variable; k++) m->registers[k * m->threads + t].u64 = numbers[k];
    }
    for (m->block = 0; m->block < count; m->block++) {
        m->born = ++m->moment;
        for (int k = 0; k < 3; k++)
            for (int t = 0; t < m->threads; t++) m->registers[k * m->threads + t].u64 = blocks[3 * m->block + k];
        memset(m->held, BOTH, variable);
        memset(m->held + variable, NOTHING, m->count - variable);
        memset(variables, 0xa5, sizeof(cell) * (m->count - variable) * m->threads);
        for (m->next = 0; m->next >= 0 && m->next < m->length;) {
            m->at = m->next++;
            const char *why = carry_out(m, &m->code[m->at]);
            if (why) return why;
        }
    }
    return 0;
}
