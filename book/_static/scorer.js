// How search results are ranked: the chapters first, in their order, then the rest of the book, the library's pages last.
var Scorer = { // not const: the search has one already
  score: ([page, , , , score]) => {
    const chapter = /^notebooks\/0*(\d+)_/.exec(page);
    if (chapter) return 3 * score + 40 - 3 * chapter[1];
    if (page === "book/glossary") return Math.min(score, 40);
    return /^book\/(api|teach)\//.test(page) ? score / 2 : score;
  },
  objNameMatch: 11, objPartialMatch: 6, objPrio: { 0: 15, 1: 5, 2: -5 }, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
