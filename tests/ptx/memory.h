/* Loads and stores, and whether they may be: inside a tensor, at a multiple of their width, in conflict with nobody's. */

/* Of all ranges that begin at an address or before, the last, which ends last too; none if there are none. */
static const range *range_of(const memory *of, uint64_t address) {
    int64_t from = 0, to = of->count;
    while (from < to) {
        const int64_t middle = (from + to) / 2;
        if (of->ranges[middle].begin <= address) from = middle + 1; else to = middle;
    }
    return from ? &of->ranges[from - 1] : 0;
}

/* Blocks run one after another here, and in any order on a GPU; so do the warps of a block between two barriers. Whoever
   comes second finds the trace of the first, whichever of them it is. */
static int in_another_block(const machine *m, uint32_t moment) { return moment >= m->launched && moment < m->born; }

static const char *note_read(machine *m, const memory *of, history *h, int thread) {
    const int warp = thread / WARP;
    if (of->of_a_block && h->written < m->born) return complain(m, thread, "reads shared memory that nobody wrote");
    if (in_another_block(m, h->written)) return complain(m, thread, "reads what another block of the launch writes");
    if (h->written == m->moment && h->writer / WARP != warp)
        return complain(m, thread, "reads what another warp writes, with no barrier between");
    if (h->read < m->born) h->read_elsewhere = h->read;
    if (h->read < m->moment) h->readers = 0;
    h->readers |= 1u << warp;
    h->read = m->moment;
    return 0;
}

static const char *note_write(machine *m, const memory *of, history *h, int thread, int changes) {
    const int warp = thread / WARP;
    if (!of->of_a_block && in_another_block(m, h->written))
        return complain(m, thread, "writes what another block of the launch writes");
    if (!of->of_a_block && (in_another_block(m, h->read) || in_another_block(m, h->read_elsewhere)))
        return complain(m, thread, "writes what another block of the launch reads");
    if (h->written == m->moment && h->writer != thread && changes)
        return complain(m, thread, "writes otherwise than another thread, with no barrier between");
    if (h->read == m->moment && h->readers & ~(1u << warp))
        return complain(m, thread, "writes what another warp reads, with no barrier between");
    h->written = m->moment;
    h->writer = thread;
    return 0;
}

static const char *access_memory(machine *m, const instruction *i, const memory *of, int writes) {
    const int bytes = i->width * i->count;
    EACH_THREAD {
        m->address = (of->of_a_block ? SOURCE(0, u32) : SOURCE(0, u64)) + i->number;
        const range *in = range_of(of, m->address);
        if (m->address % bytes) return complain(m, t, "accesses memory at an address that is no multiple of its width");
        if (!in || m->address + bytes > in->end) return complain(m, t, "accesses memory that is not all of one tensor");
        history *h = of->histories + in->histories + (m->address - in->begin);
        char *data = of->base + m->address;
        for (int k = 0; k < i->count; k++, data += i->width) {
            cell value = {0};
            if (writes) value = REGISTER(1 + k); else memcpy(&value, data, i->width);
            for (int byte = 0; byte < i->width; byte++, h++) {
                const int changes = data[byte] != ((char *)&value)[byte];
                const char *why = writes ? note_write(m, of, h, t, changes) : note_read(m, of, h, t);
                if (why) return why;
            }
            if (writes) memcpy(data, &value, i->width); else REGISTER(k) = value;
        }
    }
    return 0;
}

static const char *load_global(machine *m, const instruction *i) { return access_memory(m, i, &m->global, 0); }
static const char *store_global(machine *m, const instruction *i) { return access_memory(m, i, &m->global, 1); }
static const char *load_shared(machine *m, const instruction *i) { return access_memory(m, i, &m->shared, 0); }
static const char *store_shared(machine *m, const instruction *i) { return access_memory(m, i, &m->shared, 1); }
