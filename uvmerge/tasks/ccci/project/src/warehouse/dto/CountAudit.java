package warehouse.dto;

import java.time.LocalDate;

/** A count as the auditors read it. */
public class CountAudit {
    private long id;
    private String byBadge;
    private String articleTitle;
    private LocalDate countedOn;

    public long getId() {
        return id;
    }

    public void setId(long id) {
        this.id = id;
    }

    public String getByBadge() {
        return byBadge;
    }

    public void setByBadge(String byBadge) {
        this.byBadge = byBadge;
    }

    public String getArticleTitle() {
        return articleTitle;
    }

    public void setArticleTitle(String articleTitle) {
        this.articleTitle = articleTitle;
    }

    public LocalDate getCountedOn() {
        return countedOn;
    }

    public void setCountedOn(LocalDate countedOn) {
        this.countedOn = countedOn;
    }
}
