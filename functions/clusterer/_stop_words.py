"""English words that say nothing about a topic. Labels leave them out."""

STOP_WORDS = frozenset(
    """
    a about above across after afterwards again against all almost alone along already also although always am among an
    and another any anybody anyhow anyone anything anyway anywhere are around as at away
    back be became because become becomes been before beforehand behind being below beside besides between beyond both
    but by
    came can cannot come comes could
    did do does doing done down during
    each either else elsewhere enough especially etc even ever every everybody everyone everything everywhere except
    few for from further furthermore
    gave get gets getting give given gives giving go goes going gone gonna got gotten
    had hardly has have having he hello hence her here hers herself hey hi him himself his how however
    i if in indeed instead into is it its itself
    just
    keep keeps kept kind
    last least less let lets like likely lot lots
    made mainly make makes making many may maybe me meanwhile might mine more moreover most mostly much must my myself
    namely near nearly need needs neither never nevertheless next no nobody none nonetheless nor not nothing now nowhere
    of off often oh ok okay on once one ones only onto or other others otherwise ought our ours ourselves out over own
    per perhaps please put puts
    quite
    rather really recent recently regarding
    said same saw say saying says see seem seemed seeming seems seen several shall she should show shows since so some
    somebody somehow someone something sometime sometimes somewhere still such sure
    take taken takes taking tell than thank thanks that the their theirs them themselves then there thereafter thereby
    therefore therein these they thing things think this those though through throughout thus till to together too took
    toward towards tried try trying
    under unless until unto up upon us use used uses using usually
    various very via
    want wanted wants was way ways we well went were what whatever when whenever where whereas wherever whether which
    while who whoever whole whom whose why will with within without would
    yes yet you your yours yourself yourselves
    im ive id youre youve theyre weve dont doesnt didnt isnt arent wasnt werent cant couldnt wont wouldnt shouldnt
    havent hasnt hadnt aint whats thats theres heres
    first second third two three four five six seven eight nine ten new old good great big small long short
    able according actually apparently certain certainly clearly currently generally largely particular particularly
    possible possibly probably simply today tomorrow tonight yesterday
    http https www com org net html amp nbsp quot
    """.split()
)
