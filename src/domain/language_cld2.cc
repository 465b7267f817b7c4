/* language_cld2 - see language_cld2.h. */
#include "domain/language_cld2.h"

#include <cstdio> /* the next one needs it and does not say so */

#include <cld2/public/compact_lang_det.h>

extern "C" const char *language_cld2(const char *text, int len)
{
    bool reliable = false;
    CLD2::Language language = CLD2::DetectLanguage(text, len, /* is_plain_text */ true, &reliable);

    if (!reliable || language == CLD2::UNKNOWN_LANGUAGE || language == CLD2::TG_UNKNOWN_LANGUAGE)
        return nullptr;
    return CLD2::LanguageCode(language);
}
